"""The bits of images and their splits: known, and the same whatever the processor can do."""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import pytest

from refashion.base import files
from refashion.data import idx, prepared, splits
from refashion.data.prepared import Split

GOLDEN = "85fafe5f49ea871207e9582c0d3cf3cbc40634cd8cb34e03fd33bea3a511b9be"


def some(n: int = 5003) -> Split:
    """Images and labels made of whole numbers; classes of different sizes."""
    i, j = np.arange(n)[:, None], np.arange(784)
    pixels = (i * 7919 + j * 104_729) * (i + j) % 257 % 256
    labels = i[:, 0] * i[:, 0] % 1009 % 10
    return Split(images=pixels.astype(np.uint8), labels=labels.astype(np.uint8))


def digest() -> str:
    """SHA-256 of splits, of folds, and of all files that are made of them."""
    known, sha = some(), hashlib.sha256()
    for share in (0.0, 0.1, 1 / 3, 0.9):
        for seed in (0, 2**63 - 1):
            for part in splits.stratified(known.labels, share, seed):
                sha.update(part.astype("<i8").tobytes())
    for part in splits.folds(known.labels, 7, 3):
        sha.update(part.astype("<i8").tobytes())
    sha.update(prepared.digest(known).encode())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepared.save(folder, known.images, known.labels)
        (folder / "images.gz").write_bytes(idx.pack(known.images.reshape(-1, 28, 28)))
        (folder / "labels.gz").write_bytes(idx.pack(known.labels))
        files.write_json(folder / "data.json", prepared.summary({"train": known}, "0123456789"))
        for file in sorted(folder.iterdir()):
            sha.update(file.name.encode() + file.read_bytes())
    return sha.hexdigest()


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


def test_the_summary_is_rounded_once() -> None:
    """Mean and standard deviation of two numbers whose exact values are known."""
    images = np.zeros((2, 784), np.uint8)
    images[1] = 255
    found = prepared.summary(
        {"train": Split(images=images, labels=images[:, 0] % 10)}, "0123456789"
    )
    assert json.dumps(found["pixels"]) == '{"mean": 0.5, "std": 0.5}'


def test_other_types_are_refused() -> None:
    """With or without assertions: they would pass for bytes that they are not."""
    images, labels = np.zeros((1, 784), np.uint8), np.zeros(1, np.uint8)
    for wrong in (np.int8, np.uint16, np.float64):
        with pytest.raises(ValueError, match="both must be uint8"):
            Split(images=images.astype(wrong), labels=labels)
        with pytest.raises(ValueError, match="both must be uint8"):
            Split(images=images, labels=labels.astype(wrong))
        with pytest.raises(ValueError, match="must be uint8 labels or images"):
            idx.pack(labels.astype(wrong))
    with pytest.raises(ValueError, match="must be uint8 labels or images"):
        idx.pack(images)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_shares_outside_their_range_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 1\)"):
        splits.stratified(np.arange(10, dtype=np.uint8), share, 0)
