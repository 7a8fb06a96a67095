"""Files of the official kind, written in another way than the program writes them."""

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def pack(values: np.ndarray, *, magic: int | None = None, count: int | None = None) -> bytes:
    """Images or labels as gzipped IDX; the magic number and the count may lie."""
    magic = 0x0800 + values.ndim if magic is None else magic
    count = len(values) if count is None else count
    header = b"".join(size.to_bytes(4, "big") for size in (magic, count, *values.shape[1:]))
    return gzip.compress(header + values.tobytes(), mtime=0)


def write_all(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files, name -> content, to a folder that need not be there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder
