"""Losses of the from-scratch engine: what they come to, and their gradients by hand.

A loss looks at an epoch's outputs batch by batch and keeps what its mean follows from.
"""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from refashion.portable import exact, softmax
from refashion.portable.softmax import SoftmaxTerms
from refashion.training.engine import Fit


class Loss(Protocol):
    """One pass over some examples."""

    def __init__(self, targets: Tensor, num_outputs: int) -> None:
        """Begin with the targets of all rows."""

    def see(self, rows: slice, outputs: Tensor) -> Any:
        """Keep what the loss of these rows follows from, and give what `gradient` needs of it."""

    def gradient(self, rows: slice, seen: Any) -> Tensor:
        """Gradient of every row's own loss with respect to its outputs: float64 [rows, outputs]."""

    def fit(self) -> Fit:
        """Mean loss of all rows, and their accuracy."""


class CrossEntropy:
    """Cross-entropy of the softmax (book, sections 3.4 and 3.6); outputs are logits."""

    def __init__(self, targets: Tensor, num_outputs: int) -> None:
        self.labels = targets
        n, device = len(targets), targets.device
        self.shifted = torch.empty((n, num_outputs), dtype=torch.float64, device=device)
        self.totals = torch.empty((n, 1), dtype=torch.float64, device=device)

    def see(self, rows: slice, outputs: Tensor) -> SoftmaxTerms:
        """Keep the shifted logits; the logarithm can wait."""
        terms = SoftmaxTerms.of(outputs)
        self.shifted[rows] = terms.shifted
        self.totals[rows] = terms.totals
        return terms

    def gradient(self, rows: slice, seen: SoftmaxTerms) -> Tensor:
        """``softmax(o) - y``."""
        return seen.gradient(self.labels[rows])

    def fit(self) -> Fit:
        """Mean of -log softmax of the true class, and accuracy."""
        losses = softmax.losses(self.shifted, self.totals, self.labels)
        correct = int((self.shifted.argmax(1) == self.labels).sum())
        return Fit(loss=exact.mean(losses), accuracy=correct / len(self.labels))


class SquaredError:
    """Half the squared error (book, section 3.1); targets are float64 [..., n, outputs]."""

    def __init__(self, targets: Tensor, num_outputs: int) -> None:
        assert targets.shape[-1] == num_outputs
        self.targets = targets
        self.residuals = torch.empty_like(targets)

    def see(self, rows: slice, outputs: Tensor) -> Tensor:
        """Keep the residuals."""
        residuals = outputs - self.targets[..., rows, :]
        self.residuals[..., rows, :] = residuals
        return residuals

    def gradient(self, rows: slice, seen: Tensor) -> Tensor:
        """The residual itself."""
        return seen

    def fit(self) -> Fit:
        """Mean of half the squared residuals; a number is not right or wrong."""
        return Fit(loss=exact.mean(self.losses()), accuracy=math.nan)

    def losses(self) -> Tensor:
        """Half the square of every output's residual: [..., n * outputs]."""
        return (self.residuals * self.residuals).flatten(-2) * 0.5


LOSSES: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "squared": SquaredError}
