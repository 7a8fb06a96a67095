"""Tiny files of the official kind."""

from pathlib import Path

import numpy as np
import pytest

from official import pack, write_all
from refashion.data.catalogue import FILES


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """Name of each of the four files -> its values: 40 training images and 20 of the test."""
    rng = np.random.default_rng(0)
    values = {}
    for part, n in (("train", 40), ("test", 20)):
        images_name, labels_name = FILES[part]
        values[images_name] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        values[labels_name] = np.arange(n, dtype=np.uint8) % 10
    return values


@pytest.fixture
def official_files(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Name of each of the four files -> its content."""
    return {name: pack(values) for name, values in arrays.items()}


@pytest.fixture
def raw(official_files: dict[str, bytes], tmp_path: Path) -> Path:
    """A folder with the four files."""
    return write_all(tmp_path / "raw", official_files)
