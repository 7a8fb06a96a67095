"""The epoch loop: what a training leaves, with and without anything to watch."""

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from refashion import selftest
from refashion.base.errors import UserError
from refashion.training import digest, loop
from refashion.training.settings import Settings

SETTINGS = replace(selftest.INSTANCES["mlp"], hidden=(8,), batch_size=64, epochs=3)


def split(start: int, stop: int) -> Any:
    data = selftest.examples(torch.device("cpu"))
    return SimpleNamespace(
        images=data.inputs[start:stop].numpy(),
        labels=data.targets[start:stop].numpy().astype(np.uint8),
    )


def train(settings: Settings = SETTINGS, watched: int = 100) -> loop.Training:
    return loop.train(settings, split(0, 200), split(200, 200 + watched), device="cpu")


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_history(numerics: str) -> None:
    training = train(replace(SETTINGS, numerics=numerics))
    assert [row.epoch for row in training.history] == [1, 2, 3]
    last = training.history[-1]
    assert last.weights_sha256 == digest.weights(training.weights)
    assert len({row.weights_sha256 for row in training.history}) == 3
    weights = [t.double() for name, t in training.weights.items() if name.endswith("weight")]
    norm = math.sqrt(sum(float((t * t).sum()) for t in weights))
    assert last.weight_norm == pytest.approx(norm, rel=1e-4)
    assert last.validation_loss < math.log(10) * 1.1
    assert 0 <= last.validation_accuracy <= 1
    assert training.contract == {"portable": "portable/2", "native": "native/cpu"}[numerics]


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_nothing_to_watch(numerics: str) -> None:
    settings = replace(SETTINGS, numerics=numerics)
    alone, watched = train(settings, watched=0), train(settings)
    for row, other in zip(alone.history, watched.history, strict=True):
        assert math.isnan(row.validation_loss) and math.isnan(row.validation_accuracy)
        assert row.weights_sha256 == other.weights_sha256  # watching teaches nothing


def test_more_epochs_begin_with_the_same_ones() -> None:
    history = train().history
    assert train(replace(SETTINGS, epochs=2)).history == history[:2]


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"training set.*empty"):
        loop.train(SETTINGS, split(0, 0), split(0, 10), device="cpu")


def test_timings_are_kept_apart() -> None:
    timings = train().timings
    assert set(timings) == {
        "started",
        "seconds",
        "seconds_per_epoch",
        "images_per_second",
        "peak_memory_mib",
        "device",
        "device_name",
        "threads",
        "cpu_capability",
        "torch",
        "python",
        "platform",
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", str(timings["started"]))
    assert len(timings["seconds_per_epoch"]) == 3  # type: ignore[arg-type]
    assert timings["device"] == "cpu" and timings["device_name"]


def test_images_mapped_from_a_file(tmp_path: Any, recwarn: pytest.WarningsRecorder) -> None:
    """Read-only pages train like any others, and without a warning."""
    plain = split(0, 200)
    np.save(tmp_path / "images.npy", plain.images)
    mapped = SimpleNamespace(
        images=np.load(tmp_path / "images.npy", mmap_mode="r"), labels=plain.labels
    )
    training = loop.train(SETTINGS, mapped, split(200, 300), device="cpu")
    assert training.history == train().history
    assert not [str(warning.message) for warning in recwarn]
