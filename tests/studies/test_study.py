"""From models to runs: what is observed, summed up and laid over each other."""

import csv
import hashlib
import re
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import tiny
from oracles import numbers
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.studies import house_prices, initialisation, k_fold, study, weight_decay
from refashion.studies.study import Measures, Trained
from refashion.training import digest
from refashion.training.initial import Weights
from refashion.training.loop import Model, Row
from refashion.training.settings import Settings

SETTINGS = Settings(lr=0.05, epochs=3, batch_size=4, num_inputs=3, num_outputs=1, loss="squared")


def model(seed: int = 0, n: int = 10, **changes: Any) -> Model:
    settings = replace(SETTINGS, seed=seed, **changes)
    train, validation = numbers(settings, n, seed), numbers(settings, 4)
    return Model(settings=settings, train=train, validation=validation)


def observe(row: Row, weights: Weights) -> Measures:
    assert row.weights_sha256 == digest.weights(weights)
    return {"loss": row.train_loss, "model": row.model}


def train(*models: Model, **changes: Any) -> list[Trained]:
    return study.train("tests", models, "cpu", observe, **changes)


def write(root: Path, name: str, trained: list[Trained], **changes: Any) -> Run:
    record: dict[str, Any] = {"params": {"lr": 0.05}, "inputs": {"train": "1" * 64}}
    record["data"] = {"dataset": "synthetic"}
    study.write_run(Workspace(root), f"weight_decay/{name}", trained, **{**record, **changes})
    runs = {run.title: run for run in listing.of_study(Workspace(root), "weight_decay")}
    return runs[f"weight_decay/{name}"]


# --- training ---------------------------------------------------------------------------------


def test_every_epoch_of_every_model_is_observed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    @contextmanager
    def progress(*arguments: Any, shown: bool) -> Iterator[Any]:
        told.append(arguments)
        yield lambda amount=1, note="": told.append((amount, note))

    monkeypatch.setattr(study, "progress", progress)
    trained = train(model(), model(1), model(2, epochs=5))
    assert [len(t.rows) for t in trained] == [3, 3, 5]
    rows = [row for t in trained for row in t.training.history]
    observed = [row for t in trained for row in t.rows]
    assert observed == [{"loss": row.train_loss, "model": row.model} for row in rows]
    notes = [(1, f"loss {row.train_loss:.3f}") for row in rows]
    assert told[0] == ("tests", 11, "epochs", 0) and sorted(told[1:]) == sorted(notes)


def test_timings_of_trainings_one_after_another() -> None:
    wild = train(model(2, lr=1e38), may_diverge=True)
    parts = [train(model(), model(1)), train(model(1, epochs=2, n=20)), wild]
    trained = [t for part in parts for t in part]
    seconds = [study.timings(part)["seconds_per_epoch"] for part in parts]
    assert [len(epochs) for epochs in seconds] == [3, 2, 0]
    timings = study.timings(trained)
    assert timings["seconds_per_epoch"] == pytest.approx(
        [seconds[0][0] + seconds[1][0], seconds[0][1] + seconds[1][1], seconds[0][2]]
    )
    assert timings["seconds"] == pytest.approx(sum(map(sum, seconds)))
    rate = (2 * 3 * 10 + 2 * 20) / timings["seconds"]
    assert timings["images_per_second"] == pytest.approx(rate)
    assert study.timings(wild)["images_per_second"] == 0.0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", timings["started"])
    assert timings["peak_memory_mib"] > 1 and timings["device"] == "cpu"
    assert timings["device_name"] and timings["threads"] == torch.get_num_threads()


@pytest.mark.parametrize(
    ("module", "columns"),
    [
        (weight_decay, {"test_loss": "validation_loss", "l2": "weight_norm"}),
        (k_fold, {name: name for name in study.MEASURES}),
    ],
)
def test_a_runs_measures_are_those_of_its_trainings(
    module: ModuleType, columns: dict[str, str], tmp_path: Path
) -> None:
    result = tiny.run(module, tiny.write_data(tmp_path), tiny.params())
    for name, run in result.runs.items():
        epochs = list(zip(*(t.history for t in result.trainings[name]), strict=True))
        for measure, column in {"train_loss": "train_loss", **columns}.items():
            values = [[getattr(row, column) for row in rows] for rows in epochs]
            assert run.history[measure] == list(map(statistics.fmean, values))
            assert run.metrics[measure] == run.history[measure][-1]
            spread = statistics.stdev(values[-1]) if values[-1][1:] else None
            assert run.metrics.get(f"{measure}_std") == spread


@pytest.mark.parametrize("module", [weight_decay, house_prices, initialisation, k_fold])
def test_torch_finds_nearly_the_same(module: ModuleType, tmp_path: Path) -> None:
    """Both engines in every study, by all that is measured; unless it is chaotic or rounding."""
    portable, native = (
        tiny.run(module, tiny.write_data(tmp_path / numerics), tiny.params(numerics=numerics))
        for numerics in ("portable", "native")
    )
    for name, run in native.runs.items():
        assert run.record.contract == "native/cpu"
        if name not in ("unit_normal", "constant"):
            assert portable.runs[name].metrics == pytest.approx(run.metrics, rel=1e-2)


# --- files ------------------------------------------------------------------------------------


def test_a_run_and_its_part(tmp_path: Path) -> None:
    trained = train(model(), model(1))
    run = write(tmp_path, "whole", trained)
    assert run.metrics == study.last_measures(trained)
    assert run.history["loss"] == [row["loss"] for row in study.mean_history(trained)]
    assert run.record.name == "weight_decay/whole" and run.record.experiment == "weight_decay"
    assert run.record.stage == "study@weight_decay" and run.record.parent is None
    assert run.record.folders == ("reports/studies/weight_decay/whole",)
    digests = [t.training.digest for t in trained]
    of_all = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert run.record.outputs["weights"] == of_all
    whole, stage = "weight_decay/whole", "other/dvc.yaml:other"
    part = write(tmp_path, "part", trained[:1], parent=whole, stage=stage)
    assert (part.record.parent, part.record.stage) == (whole, stage)
    assert part.record.outputs["weights"] == digests[0]


def test_curves_are_histories_one_below_the_other(tmp_path: Path) -> None:
    """Of runs that sum up others alone; a run may lack a column, or have no epoch."""
    for name, history, parent in (
        ("zebra", [{"a": 1.0}, {"a": 2.0, "b": 3.0}], None),
        ("ape", [{"b": 4.0}], None),
        ("lost", [], None),
        ("zebra.fold_1", [{"a": 5.0}], "weight_decay/zebra"),
    ):
        write(tmp_path, name, train(model()), history=history, metrics={}, parent=parent)
    study.finish(Workspace(tmp_path), "weight_decay", {"loss": {"first": 0.25}})
    file = Workspace(tmp_path).study_folder("weight_decay") / "curves.csv"
    assert list(csv.reader(file.open())) == [
        ["run", "epoch", "b", "a"],
        ["ape", "1", "4.0", ""],
        ["zebra", "1", "", "1.0"],
        ["zebra", "2", "3.0", "2.0"],
    ]
