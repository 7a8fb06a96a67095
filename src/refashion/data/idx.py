"""The IDX format of MNIST and its kin, gzipped: images and labels as bytes.

A file holds a magic number, one size per dimension (big-endian int32), then the values. The magic
number tells the type (0x08: unsigned bytes) and the number of dimensions.
Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from refashion.base import files
from refashion.base.errors import UserError

SIDE = 28
NUM_CLASSES = 10
IMAGES_MAGIC = 2051
LABELS_MAGIC = 2049
MAX_BYTES = 2**27
"""No official file unpacks to as much: a limit for other files."""

STORED_BLOCK = 2**16 - 1


def read_images(path: Path) -> np.ndarray:
    """Images of a gzipped IDX file: uint8 [n, 784], read-only.

    `UserError` if the file is missing, not gzip or truncated, or has another magic number, count or
    size of images.
    """
    values, (_, *size) = _read(path, IMAGES_MAGIC)
    if size != [SIDE, SIDE]:
        raise _refusal(path, f"its images are {size[0]} x {size[1]}, not {SIDE} x {SIDE}")
    return values.reshape(-1, SIDE * SIDE)


def read_labels(path: Path) -> np.ndarray:
    """Labels of a gzipped IDX file: uint8 [n], read-only, in 0 to 9; errors as `read_images`."""
    labels, _ = _read(path, LABELS_MAGIC)
    if problem := label_out_of_range(labels):
        raise _refusal(path, problem)
    return labels


def label_out_of_range(labels: np.ndarray) -> str:
    """Name the first label above 9; empty if there is none."""
    for i in np.flatnonzero(labels >= NUM_CLASSES)[:1]:
        return f"label {i} is {labels[i]}, not in 0 to 9"
    return ""


def pack(values: np.ndarray) -> bytes:
    """Labels (uint8 [n]) or images (uint8 [n, 28, 28]) as gzipped IDX, always the same bytes.

    The gzip stream stores its content and carries no time: what a compressor makes of the same
    content varies with the version of zlib.
    """
    assert values.dtype == np.uint8
    header = struct.pack(f">{values.ndim + 1}I", 2048 + values.ndim, *values.shape)
    content = header + values.tobytes()
    packed = [b"\x1f\x8b\x08" + bytes(6) + b"\xff"]
    for first in range(0, len(content), STORED_BLOCK):
        block = content[first : first + STORED_BLOCK]
        last = first + STORED_BLOCK >= len(content)
        packed.append(struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block)
    return b"".join([*packed, struct.pack("<II", zlib.crc32(content), len(content))])


def _read(path: Path, magic: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """Values (uint8, flat) and the size of every dimension."""
    content = _unzip(path)
    actual_magic = int.from_bytes(content[:4], "big")
    if actual_magic != magic:
        raise _refusal(path, f"its IDX magic number is {actual_magic}, not {magic}")
    dimensions = magic % 256
    start = 4 * (1 + dimensions)
    if len(content) < start:
        raise _refusal(path, f"its header has {len(content)} bytes, not {start}")
    shape = struct.unpack_from(f">{dimensions}I", content, offset=4)
    size, promised = len(content) - start, math.prod(shape)
    if size != promised:
        raise _refusal(
            path,
            f"its header promises {shape[0]} items ({promised} bytes), but {size} bytes follow",
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start), shape


def _unzip(path: Path) -> bytes:
    content = files.read_bytes(path, "run the stage `download`")
    try:
        unzipped = gzip.GzipFile(fileobj=io.BytesIO(content)).read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _refusal(path, f"not a sound gzip file ({error})") from None
    if len(unzipped) > MAX_BYTES:
        raise _refusal(path, f"it unpacks to more than {MAX_BYTES} bytes")
    return unzipped


def _refusal(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: {problem}; fetch the official file again")
