"""Every verdict from runs in which one thing was changed."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

import synthetic
from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.reproduction import reproduce, verdict
from refashion.runs import write
from refashion.runs.run import Run, in_checkout
from refashion.training import digest

NATIVE = {"contract": "native/cpu"}
WEIGHTS = {"layers.0.weight": 4 * torch.eye(4), "layers.1.bias": torch.arange(4.0)}


def run(
    root: Path,
    *,
    name: str = "mlp",
    contract: str = "portable/2",
    lr: float = 0.1,
    images: str = "a",
    losses: tuple[float, ...] = (3.0, 2.0, 1.0),
    change: Callable[[dict[str, torch.Tensor]], Any] = dict,
    promised: str = "",
    **metrics: float,
) -> Run:
    """Write a run: of a variant with its weights, or of a study without."""
    weights = {name: tensor.clone() for name, tensor in WEIGHTS.items()}
    change(weights)
    record = synthetic.record(
        name, contract=contract, inputs={"train": images * 64}, params={"lr": lr}
    )
    done = write.write(
        Workspace(root),
        record,
        [{"train_loss": loss} for loss in losses],
        digest=promised or digest.weights(weights),
        weights=weights if name == "mlp" else None,
        timings={},
    )
    folder = root / record.folders[-1]
    files.write_json(folder / "metrics.json", {"loss": 0.5, "accuracy": 0.5, **metrics})
    files.write_csv(folder / "predictions.csv", ["predicted"], [["Bag"]])
    return in_checkout(Workspace(root), done)


def flip(weights: dict[str, torch.Tensor]) -> None:
    """Change the last bit of one number."""
    weights["layers.1.bias"].view(torch.int32)[1] ^= 1


def scale(factor: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda weights: weights["layers.0.weight"].mul_(factor)


@pytest.fixture(params=["mlp", "weight_decay/decay_3"])
def name(request: pytest.FixtureRequest) -> str:
    """Of a variant, and of a study's run, which has no weights."""
    return request.param


def compare(tmp_path: Path, before: dict[str, Any], after: dict[str, Any]) -> verdict.Verdict:
    return verdict.compare(run(tmp_path / "a", **before), run(tmp_path / "b", **after))


def test_the_same_run_is_identical(tmp_path: Path, name: str) -> None:
    result = compare(tmp_path, {"name": name}, {"name": name})
    assert result == verdict.Verdict(name=name, outcome="identical")
    assert (str(result), result.holds) == ("identical", True)


@pytest.mark.parametrize(
    ("change", "stage", "epoch"),
    [
        ({"lr": 0.2, "images": "b", "losses": (4.0, 2.0, 1.0)}, "settings", 1),
        ({"images": "b", "losses": (3.0, 2.5, 1.0), "loss": 0.4}, "preprocess", 2),
        ({"losses": (3.0, 2.0, 1.5), "loss": 0.4}, "train", 3),
        ({"losses": (3.0, 2.0)}, "train", 3),
        ({"promised": "0" * 64, "loss": 0.4}, "train", None),
        ({"loss": 0.5 + 2**-54 * 2}, "evaluate", None),
    ],
)
def test_the_first_stage_that_differs(
    tmp_path: Path, name: str, change: dict[str, Any], stage: str, epoch: int | None
) -> None:
    result = compare(tmp_path, {"name": name}, {"name": name, **change})
    assert (result.outcome, result.holds) == ("different", False)
    assert (result.stage, result.epoch) == (stage, epoch)
    at = f", epoch {epoch}" if epoch else ""
    assert str(result) == f"different: first at stage {stage}{at}"
    assert ("loss" in result.metrics) == ("loss" in change)


def test_metrics_that_only_one_has_or_that_are_no_numbers(tmp_path: Path) -> None:
    result = compare(tmp_path, {"old": 1.0}, {"accuracy": 0.25, "new": 1.0, "loss": "abc"})
    infinite = dict.fromkeys(("loss", "new", "old"), float("inf"))
    assert result.outcome == "different" and result.metrics == {"accuracy": 0.25, **infinite}


@pytest.mark.parametrize(
    ("altered", "stage"), [("history.csv", "train"), ("predictions.csv", "evaluate")]
)
def test_files_that_were_altered_or_not_made(tmp_path: Path, altered: str, stage: str) -> None:
    expected, actual = run(tmp_path / "a"), run(tmp_path / "b")
    file = actual.file(altered)
    file.write_bytes(file.read_bytes() + b"\n")
    assert verdict.compare(expected, actual).stage == stage
    assert verdict.compare(actual, expected).stage == stage
    if stage == "evaluate":
        file.unlink()
        assert verdict.compare(expected, actual).stage == stage


@pytest.mark.parametrize("promised", ["", digest.weights(WEIGHTS)], ids=["told", "untold"])
def test_the_last_bit_of_a_weight(tmp_path: Path, promised: str) -> None:
    """Whether or not the record tells of it."""
    result = compare(tmp_path, {}, {"change": flip, "promised": promised})
    assert str(result) == "different: first at stage train, tensor layers.1.bias"
    assert list(result.tensors) == ["layers.1.bias"]
    difference = result.tensors["layers.1.bias"]
    assert difference["largest"] == pytest.approx(2**-23, rel=1e-3)
    assert difference["distance"] == pytest.approx(2**-23 / 14**0.5, rel=1e-3)


def test_an_attestation_in_lines(tmp_path: Path) -> None:
    result = replace(compare(tmp_path, {}, {"change": flip}), metrics={"test_loss": 0.25}, note="!")
    attestation = {
        **{"verdict": {**asdict(result), "line": str(result)}, "run_id": "1a2b"},
        **{"commit": "c" * 40, "environment": {"torch": ["2.7.1", "2.15.0"]}},
    }
    assert list(reproduce.lines(attestation)) == [
        f"{result.name} (run 1a2b, cccccccccccc): {result}",
        "  tensor layers.1.bias: differs by up to 1.2e-07, 3.2e-08 of its norm",
        "  metric test_loss: differs by 0.25",
        "  !",
        "  torch: 2.7.1 then, 2.15.0 now",
    ]


def test_a_tensor_of_another_shape(tmp_path: Path) -> None:
    def grow(weights: dict[str, torch.Tensor]) -> None:
        weights["layers.1.bias"] = torch.arange(5.0)
        weights["layers.2.bias"] = torch.zeros(1)

    infinite = {"largest": float("inf"), "distance": float("inf")}
    result = compare(tmp_path, NATIVE, {**NATIVE, "change": grow})
    assert result.tensors == {"layers.1.bias": infinite, "layers.2.bias": infinite}
    assert result.outcome == "different"


# --- tolerance --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"change": scale(1.04)}, "within tolerance"),
        ({"change": scale(1.06)}, "different"),
        ({"promised": "0" * 64}, "within tolerance"),
        ({"accuracy": 0.515}, "within tolerance"),
        ({"accuracy": 0.485}, "within tolerance"),
        ({"accuracy": 0.525}, "different"),
        ({"images": "b"}, "different"),
        ({"lr": 0.2}, "different"),
    ],
)
def test_native_numerics_may_differ_a_little(
    tmp_path: Path, change: dict[str, Any], outcome: str
) -> None:
    result = compare(tmp_path, NATIVE, {**NATIVE, **change})
    assert (result.outcome, result.holds) == (outcome, outcome == "within tolerance")
    if result.tensors:
        assert result.tensors["layers.0.weight"]["distance"] == pytest.approx(0.05, abs=0.011)


def test_the_bounds_themselves_are_tolerated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "TENSOR_TOLERANCE", 0.25)
    monkeypatch.setattr(verdict, "METRIC_TOLERANCE", 0.25)
    result = compare(tmp_path, NATIVE, {**NATIVE, "change": scale(1.25), "accuracy": 0.75})
    assert result.tensors["layers.0.weight"]["distance"] == result.metrics["accuracy"] == 0.25
    assert result.outcome == "within tolerance"


def test_what_is_missing_is_not_compared(tmp_path: Path) -> None:
    """Portable digests decide without it; native numerics cannot be called close."""
    expected, actual = run(tmp_path / "a"), run(tmp_path / "b")
    for name in ("weights.safetensors", "metrics.json", "predictions.csv"):
        expected.file(name).unlink()
    result = verdict.compare(expected, actual)
    note = "not here, so not compared: weights.safetensors, metrics.json, predictions.csv"
    assert (result.outcome, result.note) == ("identical", note)

    expected = run(tmp_path / "c", **NATIVE)
    expected.file("weights.safetensors").unlink()
    result = verdict.compare(expected, run(tmp_path / "d", **NATIVE, change=scale(1.01)))
    note = "not here, so not compared: weights.safetensors"
    assert (result.outcome, result.note) == ("different", note)
