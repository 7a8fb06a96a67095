"""What both engines share: examples, metrics, and the batches, orders and masks of an epoch."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from refashion.base.machine import MEMORY
from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training.settings import Settings

RESIDENT = MEMORY // 2
"""Bytes of inputs beyond which batches are not read one by one: most would come from the disk."""

BLOCK = MEMORY // 4
"""Bytes of inputs that are then read at once, for many batches."""

PIECE = 4096
"""Examples of a block that are copied at once."""

DEVICE_SHARE = 0.5
"""Of a GPU's free memory, that inputs may take."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Inputs with their targets.

    The targets are on the device that trains; so are the inputs if they fit. On the CPU these may
    be mapped from a file that is larger than memory.
    """

    inputs: Tensor
    """Raw pixels, 0 to 255: uint8 [n, inputs]; or features: float32."""

    targets: Tensor
    """Classes: int64 [n]; or numbers: float64 [n, outputs]."""

    rows: Tensor | None = None
    """Numbers of the examples among the inputs, which may be more: int64 [n]; None: all of them."""

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def of_images(cls, images: np.ndarray, labels: np.ndarray) -> "Examples":
        """Images, uint8 [n, inputs], with their labels, uint8 [n]; pixels are not copied."""
        with warnings.catch_warnings():  # nothing writes to pixels, which others may share
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            pixels = torch.from_numpy(images)
        return cls(inputs=pixels, targets=torch.from_numpy(labels.astype(np.int64)))

    def __getitem__(self, rows: slice) -> "Examples":
        """The examples of these rows."""
        if self.rows is not None:
            return replace(self, targets=self.targets[rows], rows=self.rows[rows])
        return Examples(inputs=self.inputs[rows], targets=self.targets[rows])

    def select(self, rows: Tensor) -> "Examples":
        """Some of the examples, int64 [n], in this order; their inputs are not copied."""
        known = rows if self.rows is None else self.rows.index_select(0, rows)
        return replace(self, targets=self.targets.index_select(0, rows), rows=known)


class Reader:
    """Inputs of examples in some order, batch by batch, on the device of their targets.

    Those that are much larger than memory are read in blocks of many batches, each in one pass
    over the file: the rows of a block by rising number, then put in their order.

    Parameters
    ----------
    examples
        To be read.
    order
        Of the examples, int64 [n]; by default as they are.
    readers
        How many are at work at a time: they share memory.
    """

    def __init__(self, examples: Examples, order: Tensor | None = None, readers: int = 1) -> None:
        self.inputs, self.device = examples.inputs, examples.targets.device
        place = self.inputs.device
        self.order = order if order is None else order.to(place)
        if examples.rows is not None:
            rows = examples.rows.to(place)
            self.order = rows if self.order is None else rows.index_select(0, self.order)
        self.block = 0
        if self.order is not None and place.type == "cpu" and self.inputs.nbytes > RESIDENT:
            self.block = BLOCK // readers * len(self.inputs) // self.inputs.nbytes
        self.start = self.stop = 0
        self.buffer = self.inputs[:0]

    def __getitem__(self, rows: slice) -> Tensor:
        """Inputs of the examples from one to another place in the order."""
        if self.order is None:
            batch = self.inputs[rows]
        elif self.block > rows.stop - rows.start:
            if not self.start <= rows.start <= rows.stop <= self.stop:
                self._read(rows.start)
            batch = self.buffer[rows.start - self.start : rows.stop - self.start]
        else:
            batch = self.inputs.index_select(0, self.order[rows])
        if batch.device == self.device:
            return batch
        return batch.pin_memory().to(self.device, non_blocking=True)

    def _read(self, start: int) -> None:
        """Fill the buffer with the block that starts there."""
        assert self.order is not None
        rising, places = self.order[start : start + self.block].sort()
        if len(self.buffer) < len(rising):
            self.buffer = self.inputs.new_empty(len(rising), *self.inputs.shape[1:])
        for rows, there in zip(rising.split(PIECE), places.split(PIECE), strict=True):
            self.buffer.index_copy_(0, there, self.inputs.index_select(0, rows))
        self.start, self.stop = start, start + len(rising)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Loss and accuracy of a model on some examples."""

    loss: float
    """Mean: cross-entropy in nats, or half the squared error."""

    accuracy: float
    """Share of the examples whose likeliest class is the true one; NaN without classes."""


def on_device(sets: Sequence[Examples], device: torch.device) -> list[Examples]:
    """The same examples for a training on a device, with each tensor of inputs there once.

    Inputs that leave no room on a GPU stay on the CPU; a `Reader` streams them from there.
    """
    inputs = {id(e.inputs): e.inputs for e in sets}
    if device.type == "cuda":
        room = DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
        if sum(x.nbytes for x in inputs.values()) <= room:
            inputs = {key: x.to(device) for key, x in inputs.items()}
    return [replace(e, inputs=inputs[id(e.inputs)], targets=e.targets.to(device)) for e in sets]


def per_model(
    values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float64
) -> float | Tensor:
    """A setting of every model of a stack: one number where they agree, else [models, 1, 1]."""
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=torch.float64, device=device).to(dtype)[:, None, None]


def batches(n: int, size: int) -> list[slice]:
    """Rows of each batch in an epoch's order; the last batch may be smaller."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def order(settings: Settings, n: int, epoch: int, device: torch.device) -> Tensor:
    """The order of the `n` training examples in an epoch: int64 [n]."""
    return streams.permutation(n, streams.key(settings.seed, Purpose.SHUFFLE, epoch), device=device)


def mask(settings: Settings, rows: slice, epoch: int, layer: int, device: torch.device) -> Tensor:
    """Dropout mask of a hidden layer for rows of an epoch's order: 1 for what stays, else 0."""
    if not settings.dropout[layer]:
        return torch.ones(
            rows.stop - rows.start, settings.hidden[layer], dtype=torch.float32, device=device
        )
    return streams.bernoulli_rows(
        (rows.start, rows.stop),
        settings.hidden[layer],
        settings.dropout[layer],
        streams.key(settings.seed, Purpose.DROPOUT, epoch, layer),
        device=device,
    )
