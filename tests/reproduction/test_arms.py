"""Arms of studies under the verdict and the gate, as variants are."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from refashion import studies
from refashion.base import files, paths
from refashion.base.params import Threshold
from refashion.base.params.studies import WeightDecayParams
from refashion.reproduction import gate, verdict, verify
from refashion.studies import arm, weight_decay
from refashion.tracking import results
from refashion.tracking.results import ArmResults

STUDY = "weight_decay"
DECAY = WeightDecayParams(
    **{"weight_decays": (0.0, 3.0), "train": 6, "test": 8, "inputs": 10, "lr": 0.003},
    **{"batch_size": 3, "epochs": 3, "seeds": 2},
)


def trained(
    root: Path, numerics: str = "portable", penalties: tuple[float, ...] = DECAY.weight_decays
) -> ArmResults:
    """The last arm of a study that ran in a checkout."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    p = DECAY.model_copy(update={"weight_decays": penalties})
    arms = weight_decay.run(p, 0, numerics, "cpu")
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "STUDIES", root / "reports" / "studies")
        patch.setattr(paths, "LOGS", root / "logs")
        arm.save(STUDY, [replace(one, name=f"arm_{i}") for i, one in enumerate(arms)])
    return results.arms(root, STUDY)[-1]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> ArmResults:
    return trained(tmp_path_factory.mktemp("expected"))


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ArmResults:
    return trained(tmp_path_factory.mktemp("native"), "native")


def changed(one: ArmResults, root: Path, name: str, change: Callable[[Any], None]) -> ArmResults:
    """The arm in a copy of its checkout, after a change to one of the study's JSON files."""
    shutil.copytree(one.root, root)
    found = one.at(root)
    file = root / "reports" / "studies" / STUDY / name
    content = json.loads(file.read_text())
    change(content[one.arm])
    files.write_json(file, content)
    return found


# --- verdicts ---------------------------------------------------------------------------------


def test_the_same_study_is_identical(expected: ArmResults, tmp_path: Path) -> None:
    for found in (expected, trained(tmp_path)):
        done = verdict.compare(expected, found)
        assert (done.variant, str(done), done.holds) == (f"{STUDY}/arm_1", "identical", True)
        assert (done.metrics, done.tensors, done.note) == ({}, {}, "")


def test_other_metrics(expected: ArmResults, tmp_path: Path) -> None:
    def change(metrics: dict[str, float]) -> None:
        metrics["l2"] += 0.25
        del metrics["seeds"]

    found = changed(expected, tmp_path / "checkout", "metrics.json", change)
    done = verdict.compare(expected, found)
    assert (done.outcome, done.stage, done.epoch) == ("different", "evaluate", None)
    assert done.metrics == {"l2": pytest.approx(0.25), "seeds": float("inf")}


def test_another_arm_of_the_study_does_not_matter(expected: ArmResults, tmp_path: Path) -> None:
    other = expected.root / "reports" / "studies" / STUDY / "metrics.json"
    shutil.copytree(expected.root, tmp_path / "checkout")
    metrics = json.loads(other.read_text())
    metrics["arm_0"]["l2"] = 0.0
    files.write_json(tmp_path / "checkout" / other.relative_to(expected.root), metrics)
    assert verdict.compare(expected, expected.at(tmp_path / "checkout")).outcome == "identical"


def test_another_history_names_the_epoch(expected: ArmResults, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["outputs"]["history"] = "0" * 64

    found = changed(expected, tmp_path / "checkout", "record.json", change)
    file = found.root / "reports" / "studies" / STUDY / "history.csv"
    header, *rows = csv.reader(file.read_text().splitlines())
    (at,) = (i for i, row in enumerate(rows) if row[:2] == ["arm_1", "2"])
    rows[at][2] += "1"
    files.write_csv(file, header, rows)
    done = verdict.compare(expected, found)
    assert (done.outcome, done.stage, done.epoch) == ("different", "train", 2)
    assert str(done) == "different: first at stage train, epoch 2"


def test_other_settings(expected: ArmResults, tmp_path: Path) -> None:
    done = verdict.compare(expected, trained(tmp_path, penalties=(0.0, 2.0)))
    assert (done.outcome, done.stage, done.epoch) == ("different", "settings", 1)


def test_other_examples(expected: ArmResults, tmp_path: Path) -> None:
    def change(record: dict[str, Any]) -> None:
        record["inputs"]["train"] = "0" * 64

    found = changed(expected, tmp_path / "checkout", "record.json", change)
    assert verdict.compare(expected, found).stage == "preprocess"


@pytest.mark.parametrize(
    ("step", "outcome"), [(0.0, "identical"), (0.01, "within tolerance"), (0.03, "different")]
)
def test_native_numerics_may_differ_a_little(
    native: ArmResults, tmp_path: Path, step: float, outcome: str
) -> None:
    def change(metrics: dict[str, float]) -> None:
        metrics["l2"] += step

    done = verdict.compare(native, changed(native, tmp_path / "c", "metrics.json", change))
    assert done.outcome == outcome
    assert done.holds == (outcome != "different")


def test_portable_numerics_may_not(expected: ArmResults, tmp_path: Path) -> None:
    def change(metrics: dict[str, float]) -> None:
        metrics["l2"] *= 1 + 2**-50

    found = changed(expected, tmp_path / "checkout", "metrics.json", change)
    assert verdict.compare(expected, found).outcome == "different"


def test_portable_and_native_are_different(expected: ArmResults, native: ArmResults) -> None:
    assert verdict.compare(expected, native).stage == "settings"


# --- the gate ---------------------------------------------------------------------------------


@pytest.fixture
def here(expected: ArmResults, monkeypatch: pytest.MonkeyPatch) -> ArmResults:
    """The workspace is the one in which the study has run."""
    monkeypatch.setattr(paths, "STUDIES", expected.root / "reports" / "studies")
    return expected


def test_thresholds_of_studies(here: ArmResults) -> None:
    l2 = here.metrics["l2"]
    asked = {
        "arm_1.l2": Threshold(at_most=l2),
        "arm_1.test_loss": Threshold(at_most=-1.0),
        "arm_1.l2_deviation": Threshold(at_least=0.0),
        "arm_7.l2": Threshold(at_most=1.0),
        "l2": Threshold(at_most=1e9),
    }
    checks = {check.name: check for check in gate._good_enough({STUDY: asked})}
    assert {name: check.holds for name, check in checks.items()} == {
        "weight_decay: arm_1.l2": True,
        "weight_decay: arm_1.test_loss": False,
        "weight_decay: arm_1.l2_deviation": True,
        "weight_decay: arm_7.l2": False,
        "weight_decay: l2": False,
    }
    assert checks["weight_decay: arm_1.l2"].detail == f"{l2:.4f}, asked <= {l2:g}"
    assert checks["weight_decay: arm_7.l2"].detail == "missing, asked <= 1"


def test_a_study_that_has_not_run_is_not_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "STUDIES", tmp_path)
    asked = {study: {"a.b": Threshold(at_least=0.0)} for study in studies.NAMES}
    checks = list(gate._good_enough(asked))
    assert [check.name for check in checks] == [f"{study}: a.b" for study in studies.NAMES]
    assert not any(check.holds for check in checks)


# --- stages -----------------------------------------------------------------------------------


def stages(file: Path) -> set[str]:
    return set(yaml.safe_load(file.read_text())["stages"])


def test_every_study_is_verified() -> None:
    assert set(studies.DEFAULT) < set(verify.LAST)
    assert set(verify.LAST) <= stages(paths.ROOT / "dvc.yaml")


@pytest.mark.parametrize("study", studies.NAMES)
def test_every_study_has_its_stage(study: str) -> None:
    file, _, name = results.stage(study).rpartition(":")
    assert name == study
    assert study in stages(paths.ROOT / (file or "dvc.yaml"))
    assert ArmResults(root=paths.ROOT, variant=f"{study}/any").stage == results.stage(study)
    assert (paths.ROOT / ArmResults(root=paths.ROOT, variant=f"{study}/any").source).exists()
