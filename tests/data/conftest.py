"""Tiny files of the official kind."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from refashion.data.catalogue import FILES


def _pack(values: np.ndarray, *, magic: int | None = None, count: int | None = None) -> bytes:
    magic = 0x0800 + values.ndim if magic is None else magic
    count = len(values) if count is None else count
    header = b"".join(size.to_bytes(4, "big") for size in (magic, count, *values.shape[1:]))
    return gzip.compress(header + values.tobytes())


@pytest.fixture(scope="session")
def pack() -> Callable[..., bytes]:
    """Writes the IDX format in another way than the program does; magic and count may lie."""
    return _pack


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Name of each of the four files -> its values: 40 training images and 20 of the test."""
    rng = np.random.default_rng(0)
    found = {}
    for part, n in (("train", 40), ("test", 20)):
        images_name, labels_name = FILES[part]
        found[images_name] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        found[labels_name] = np.arange(n, dtype=np.uint8) % 10
    return found


@pytest.fixture
def official_files(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Name of each of the four files -> its content."""
    return {name: _pack(values) for name, values in arrays.items()}


@pytest.fixture
def raw(official_files: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with the four files."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, content in official_files.items():
        (folder / name).write_bytes(content)
    return folder
