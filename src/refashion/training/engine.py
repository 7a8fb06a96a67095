"""What both engines share: examples, metrics, and the batches, orders and masks of an epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """Inputs with their targets, on the device that trains."""

    inputs: Tensor
    """Raw pixels, 0 to 255: uint8 [n, inputs]; or features: float32."""

    targets: Tensor
    """Classes: int64 [n]; or numbers: float64 [n, outputs]."""

    def __len__(self) -> int:
        return len(self.targets)

    @classmethod
    def of_images(cls, images: np.ndarray, labels: np.ndarray) -> "Examples":
        """Images, uint8 [n, inputs], with their labels, uint8 [n]; pixels are not copied."""
        pixels = torch.from_numpy(np.require(images, requirements="W"))
        return cls(inputs=pixels, targets=torch.from_numpy(labels.astype(np.int64)))

    def __getitem__(self, rows: slice) -> "Examples":
        """The examples of these rows."""
        return Examples(inputs=self.inputs[rows], targets=self.targets[rows])

    def to(self, device: torch.device) -> "Examples":
        """The same examples on another device."""
        return Examples(inputs=self.inputs.to(device), targets=self.targets.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Loss and accuracy of a model on some examples."""

    loss: float
    """Mean: cross-entropy in nats, or half the squared error."""

    accuracy: float
    """Share of the examples whose likeliest class is the true one; NaN without classes."""


AfterStep = Callable[[int], None]
"""Called with the number of every finished step of an epoch, from 1."""


def per_model(
    values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float64
) -> float | Tensor:
    """A setting of every model of a stack: one number where they agree, else [models, 1, 1]."""
    if len(set(values)) == 1:
        return values[0]
    return torch.tensor(values, dtype=torch.float64).to(device, dtype)[:, None, None]


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
