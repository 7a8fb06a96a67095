"""The bits of images and their splits: known, and the same whatever the processor can do."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np

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
