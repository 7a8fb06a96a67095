"""A split as the trainings read it: two arrays in a folder."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from refashion.base.errors import UserError
from refashion.base.files import refuse_special, replacing
from refashion.data.idx import NUM_CLASSES, SIDE, label_out_of_range

NUM_PIXELS = SIDE * SIDE
WHITE = 255
ROWS = 4096
"""Images whose pixels are added up at once, which take 26 MB."""

REDO = "run the stage `preprocess` again"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Images and labels that belong together."""

    images: np.ndarray
    """Pixels in 0 to 255, row by row: uint8 [n, 784]."""

    labels: np.ndarray
    """Classes in 0 to 9: uint8 [n]."""

    def __post_init__(self) -> None:
        """Hold both arrays to what this class promises; digests and files rest on their type."""
        if not self.images.dtype == self.labels.dtype == np.uint8:
            raise ValueError(
                f"a split of {self.images.dtype} images and {self.labels.dtype} labels: both must "
                "be uint8"
            )
        assert self.images.shape == (self.labels.size, NUM_PIXELS), self.images.shape
        assert self.labels.ndim == 1

    def __getitem__(self, rows: slice | np.ndarray) -> "Split":
        """Some of the images."""
        return Split(images=self.images[rows], labels=self.labels[rows])


def save(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write a split to `folder`; a split that is there already stays until all is written."""
    split = Split(images=images, labels=labels)
    with ExitStack() as stack:
        for name, array in (("images.npy", split.images), ("labels.npy", split.labels)):
            with stack.enter_context(replacing(folder / name)).open("wb") as file:
                _write(file, np.ascontiguousarray(array))


def load(folder: Path) -> Split:
    """Read a split from `folder`; its images stay on disk until they are touched.

    `UserError` if a file is missing, truncated or not an array of a split, or a label is above 9.
    """
    images = _load(folder / "images.npy", NUM_PIXELS)
    labels = _load(folder / "labels.npy")
    if len(images) != len(labels):
        raise UserError(f"{folder}: it has {len(images)} images and {len(labels)} labels; {REDO}")
    if problem := label_out_of_range(labels):
        raise UserError(f"{folder}: {problem}; {REDO}")
    return Split(images=images, labels=labels)


def digest(split: Split) -> str:
    """SHA-256 (hexadecimal) of the shapes and the bytes of a split."""
    sha = hashlib.sha256()
    for array in (split.images, split.labels):
        sha.update(f"uint8 {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def summary(splits: Mapping[str, Split], classes: Sequence[str]) -> dict[str, Any]:
    """Images of every split, in all and by class, and the pixels of the training split.

    Mean and standard deviation are of pixels on a scale of 0 to 1. They come from exact integer
    sums by one division (and one square root), so every machine finds the same bits.
    """
    result: dict[str, Any] = {}
    for name, split in splits.items():
        counts = np.bincount(split.labels, minlength=NUM_CLASSES).tolist()
        by_class = dict(zip(classes, counts, strict=True))
        result[name] = {"images": len(split.labels), "classes": by_class}
    images = splits["train"].images
    total = squares = 0
    for first in range(0, len(images), ROWS):
        pixels = images[first : first + ROWS].astype(np.int64)
        total += int(pixels.sum())
        squares += int((pixels * pixels).sum())
    white = images.size * WHITE
    variance = (images.size * squares - total * total) / (white * white)
    return {**result, "pixels": {"mean": total / white, "std": math.sqrt(variance)}}


def _write(file: BinaryIO, array: np.ndarray) -> None:
    """Write what `numpy.save` does; that loses the last 4 KiB on a full disk, and says nothing."""
    about = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(file, about)
    file.write(array.data)


def _load(path: Path, *item: int) -> np.ndarray:
    """An array of bytes [n, *item]."""
    try:
        refuse_special(path)
        # Read-only: pages that may be written to must fit in memory, all at once.
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; run the stage `preprocess`") from None
    # numpy evaluates the header as Python, and multiplies whatever sizes it promises.
    except (OSError, ValueError, TypeError, OverflowError, SyntaxError, TokenError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a sound array ({reason}); {REDO}") from None
    if array.dtype != np.uint8 or array.ndim != 1 + len(item) or array.shape[1:] != item:
        raise UserError(
            f"{path}: holds {array.dtype} {array.shape}, not uint8 images or labels; {REDO}"
        )
    return array
