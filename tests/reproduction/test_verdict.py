"""Every verdict from real trainings in which one thing was changed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from refashion import selftest
from refashion.base import files, paths
from refashion.reproduction import verdict
from refashion.tracking.runs import SideBySide
from refashion.training import digest, loop, record
from refashion.training.settings import Settings

CPU = torch.device("cpu")
MLP = replace(selftest.INSTANCES["mlp"], epochs=3)


class Split:
    """Images of the self-test, some of them changed."""

    def __init__(self, changed: int = 0) -> None:
        data = selftest.examples(CPU)
        self.images = data.inputs.numpy().copy()
        self.labels = data.targets.numpy().astype(np.uint8)
        self.images[:changed, 400] ^= 1


def trained(folder: Path, settings: Settings = MLP, data: Split | None = None) -> SideBySide:
    """What a training and its evaluation leave."""
    data = data or Split()
    training = loop.train(settings, data, data, device="cpu")
    results = SideBySide(root=folder, variant="mlp")
    inputs = {"train": str(data.images.sum()), "validation": "none"}
    record.save(
        training,
        variant="mlp",
        settings=settings,
        inputs=inputs,
        weights=results._here(paths.weights("mlp")),
        history=results._here(paths.history("mlp")),
        record=results._here(paths.record("mlp")),
        log=results._here(paths.training_log("mlp")),
    )
    accuracy = training.history[-1].train_accuracy
    files.write_json(results._here(paths.metrics("mlp")), {"accuracy": accuracy})
    return results


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> SideBySide:
    return trained(tmp_path_factory.mktemp("expected"))


def test_the_same_training_is_identical(expected: SideBySide, tmp_path: Path) -> None:
    found = verdict.compare(expected, trained(tmp_path))
    assert (found.outcome, str(found), found.holds) == ("identical", "identical", True)
    assert not found.tensors and not found.metrics


def test_another_setting(expected: SideBySide, tmp_path: Path) -> None:
    found = verdict.compare(expected, trained(tmp_path, replace(MLP, lr=MLP.lr * 1.01)))
    assert (found.outcome, found.stage, found.epoch) == ("different", "settings", 1)
    assert not found.holds and "settings" in str(found)


def test_another_byte_of_the_data(expected: SideBySide, tmp_path: Path) -> None:
    found = verdict.compare(expected, trained(tmp_path, data=Split(changed=1)))
    assert (found.outcome, found.stage, found.epoch) == ("different", "preprocess", 1)
    assert found.tensor == "layers.0.bias"


def test_other_code(expected: SideBySide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the second epoch on, the labels are taken in another order."""
    order = loop.ENGINES["portable"].train_epoch

    def train_epoch(self, examples, epoch, after_step=None):
        return order(self, examples, epoch + (epoch > 1), after_step)

    monkeypatch.setattr(loop.ENGINES["portable"], "train_epoch", train_epoch)
    found = verdict.compare(expected, trained(tmp_path))
    assert (found.outcome, found.stage, found.epoch) == ("different", "train", 2)
    assert all(0 < tensor.distance < 1 for tensor in found.tensors.values())


def test_the_last_bit_of_a_weight(expected: SideBySide, tmp_path: Path) -> None:
    """As if the training had left it so: the record tells of it."""
    results = trained(tmp_path)
    path = results.file(paths.weights("mlp"))
    tensors = load_file(path)
    tensors["layers.1.weight"].view(np.int32)[3, 2] ^= 1
    save_file(tensors, path)
    told = json.loads(results.file(paths.record("mlp")).read_text())
    told["outputs"]["weights"] = digest.weights({k: torch.tensor(v) for k, v in tensors.items()})
    files.write_json(results.file(paths.record("mlp")), told)
    found = verdict.compare(expected, SideBySide(root=tmp_path, variant="mlp"))
    assert (found.outcome, found.stage, found.epoch) == ("different", "train", None)
    assert list(found.tensors) == ["layers.1.weight"] and found.tensor == "layers.1.weight"
    assert 0 < found.tensors["layers.1.weight"].distance < 1e-6
    assert 0 < found.tensors["layers.1.weight"].largest < 1e-6


def test_another_evaluation(expected: SideBySide, tmp_path: Path) -> None:
    results = trained(tmp_path)
    files.write_json(results.file(paths.metrics("mlp")), {"accuracy": expected.metrics["accuracy"]})
    assert verdict.compare(expected, results).holds
    files.write_json(results.file(paths.metrics("mlp")), {"accuracy": 0.25, "new": 1.0})
    found = verdict.compare(expected, SideBySide(root=tmp_path, variant="mlp"))
    assert (found.outcome, found.stage) == ("different", "evaluate")
    assert found.metrics == {"accuracy": abs(expected.metrics["accuracy"] - 0.25), "new": np.inf}


def threads(count: int, make: Callable[[], SideBySide]) -> SideBySide:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return make()
    finally:
        torch.set_num_threads(before)


def test_native_numerics_on_other_threads_are_within_tolerance(tmp_path: Path) -> None:
    """A wide model, so that a product is split among threads."""
    native = replace(MLP, hidden=(512,), epochs=2, numerics="native")
    sides = [threads(n, lambda n=n: trained(tmp_path / str(n), native)) for n in (1, 2)]
    found = verdict.compare(*sides)
    if found.outcome == "identical":
        pytest.skip("this machine's kernels do not depend on the number of threads")
    assert found.outcome == "within tolerance" and found.holds
    assert found.stage == "train"
    assert all(0 < d.distance < verdict.TENSOR_TOLERANCE for d in found.tensors.values())


def test_native_numerics_far_apart_are_different(tmp_path: Path) -> None:
    native = replace(MLP, numerics="native")
    sides = [trained(tmp_path / "a", native), trained(tmp_path / "b", native)]
    path = sides[1].file(paths.weights("mlp"))
    tensors = load_file(path)
    tensors["layers.0.weight"] *= 1.2
    save_file(tensors, path)
    told = sides[1].record
    told["outputs"]["weights"] = "other"
    files.write_json(sides[1].file(paths.record("mlp")), told)
    found = verdict.compare(sides[0], SideBySide(root=tmp_path / "b", variant="mlp"))
    assert found.outcome == "different"
    assert found.tensors["layers.0.weight"].distance == pytest.approx(0.2, rel=1e-3)


def test_without_the_weights_native_numerics_cannot_be_close(tmp_path: Path) -> None:
    native = replace(MLP, numerics="native")
    other = replace(native, seed=1)
    sides = [trained(tmp_path / "a", native), trained(tmp_path / "b", other)]
    for side in sides:
        told = {**side.record, "params": {}}
        files.write_json(side.file(paths.record("mlp")), told)
    sides = [SideBySide(root=side.root, variant="mlp") for side in sides]
    sides[0].file(paths.weights("mlp")).unlink()
    found = verdict.compare(*sides)
    assert found.outcome == "different" and "not here" in found.note


def test_a_shorter_history_parts_where_it_ends(expected: SideBySide, tmp_path: Path) -> None:
    found = trained(tmp_path)
    path = found.file(paths.history("mlp"))
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert verdict.first_epoch(expected, found) == MLP.epochs
    assert verdict.first_epoch(expected, expected) is None
