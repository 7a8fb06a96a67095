import hashlib
import json
import math
import resource
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refashion.base.errors import UserError
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.data.prepared import Split


def some(n: int, seed: int = 0) -> Split:
    rng = np.random.default_rng(seed)
    return Split(
        images=rng.integers(0, 256, (n, 784), dtype=np.uint8),
        labels=rng.integers(0, 10, n, dtype=np.uint8),
    )


def folder_with(split: Split, folder: Path) -> Path:
    prepared.save(folder, split.images, split.labels)
    return folder


@pytest.mark.parametrize("n", [0, 1, 30])
def test_load_gives_back_what_was_saved(n: int, tmp_path: Path) -> None:
    split, folder = some(n), folder_with(some(n), tmp_path / "deep" / "split")
    loaded = prepared.load(folder)
    assert loaded.images.dtype == loaded.labels.dtype == np.uint8
    assert np.array_equal(loaded.images, split.images)
    assert np.array_equal(loaded.labels, split.labels)
    assert isinstance(loaded.images, np.memmap)  # they stay on disk
    assert not loaded.images.flags.writeable  # or they would have to fit in memory
    assert prepared.digest(loaded) == prepared.digest(split)


def test_save_interrupted_leaves_the_old_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with(some(5), tmp_path / "split")
    before = prepared.digest(prepared.load(folder))
    write, calls = np.lib.format.write_array_header_1_0, []

    def interrupted(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(np.lib.format, "write_array_header_1_0", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder_with(some(7), folder)
    assert sorted(f.name for f in folder.iterdir()) == ["images.npy", "labels.npy"]
    assert prepared.digest(prepared.load(folder)) == before


def test_a_disk_that_is_full_is_told_however_small_the_file(tmp_path: Path) -> None:
    """`numpy.save` would leave a shorter file, and say nothing."""
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            folder_with(some(1), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def cut(folder: Path) -> None:
    path = folder / "images.npy"
    path.write_bytes(path.read_bytes()[:-1])


def put(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / name, array)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda folder: (folder / "labels.npy").unlink(), "labels.npy: is missing; run the stage"),
        (cut, "images.npy: not a sound array"),
        (lambda folder: (folder / "images.npy").write_bytes(b""), "images.npy: not a sound array"),
        (lambda folder: (folder / "images.npy").write_text("hello"), "images.npy: not a sound"),
        (lambda folder: (folder / "images.npy").write_bytes(b"PK\3\4"), "not a sound array"),
        (put("images.npy", np.zeros((3, 28, 28), np.uint8)), "holds uint8 (3, 28, 28)"),
        (put("images.npy", np.zeros((3, 784))), "holds float64"),
        (put("labels.npy", np.array(3, np.uint8)), "holds uint8 ()"),
        (put("labels.npy", np.array([None] * 3)), "labels.npy: not a sound array"),
        (put("labels.npy", np.zeros(4, np.uint8)), "it has 3 images and 4 labels"),
        (put("labels.npy", np.array([9, 10, 255], np.uint8)), "label 1 is 10, not in 0 to 9"),
    ],
)
def test_load_refuses(spoil: Callable[[Path], None], problem: str, tmp_path: Path) -> None:
    folder = folder_with(some(3), tmp_path / "split")
    spoil(folder)
    with pytest.raises(UserError) as caught:
        prepared.load(folder)
    assert problem in str(caught.value)
    assert "preprocess" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digest_is_sha256_of_shapes_and_bytes() -> None:
    split = some(2)
    content = (
        b"uint8 (2, 784)\n" + split.images.tobytes() + b"uint8 (2,)\n" + split.labels.tobytes()
    )
    assert prepared.digest(split) == hashlib.sha256(content).hexdigest()
    # A view with gaps between its rows has the same content.
    view = Split(images=np.repeat(split.images, 2, axis=0)[::2], labels=split.labels)
    assert prepared.digest(view) == prepared.digest(split)


@pytest.mark.parametrize("wrong", [np.int8, np.uint16, np.float64])
def test_other_types_are_refused(wrong: type) -> None:
    """With or without assertions: they would pass for bytes that they are not."""
    for types in ((wrong, np.uint8), (np.uint8, wrong)):
        images, labels = (np.zeros(n, t) for n, t in zip(((1, 784), 1), types, strict=True))
        with pytest.raises(ValueError, match="both must be uint8"):
            Split(images=images, labels=labels)


@given(st.integers(1, 40), st.integers(0, 10))
def test_mean_and_std_are_those_of_exact_arithmetic(n: int, seed: int) -> None:
    split = some(n, seed)
    summary = prepared.summary({"train": split}, "0123456789")["pixels"]
    pixels = split.images.ravel().tolist()
    mean = Fraction(sum(pixels), len(pixels) * 255)
    squares = Fraction(sum(p * p for p in pixels), len(pixels) * 255**2)
    assert summary["mean"] == float(mean)
    assert summary["std"] == math.sqrt(float(squares - mean**2))
    assert summary["std"] == pytest.approx((split.images / 255).std(), rel=1e-12)


def test_summary_counts_every_class_of_every_split() -> None:
    classes = DATASETS["fashion_mnist"].classes
    n = 2 * prepared.ROWS + 5
    labels = np.zeros(n, dtype=np.uint8)
    labels[:3] = 9
    train = Split(images=np.full((n, 784), 51, dtype=np.uint8), labels=labels)
    summary = prepared.summary({"train": train, "validation": some(0)}, classes)
    none = dict.fromkeys(classes, 0)
    assert summary == {
        "train": {"images": n, "classes": none | {"T-shirt/top": n - 3, "Ankle boot": 3}},
        "validation": {"images": 0, "classes": none},
        "pixels": {"mean": 0.2, "std": 0.0},
    }
    json.dumps(summary)  # plain numbers only
