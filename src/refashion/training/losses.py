"""Losses of the from-scratch engine, with their gradients by hand."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from refashion.portable import exact, softmax
from refashion.portable.softmax import SoftmaxTerms
from refashion.training.engine import Metrics


class Loss(Protocol):
    """The loss of one pass over some examples, which gathers their terms batch by batch."""

    def __init__(self, targets: Tensor, num_outputs: int) -> None:
        """Begin with the targets of all rows."""

    def forward(self, rows: slice, outputs: Tensor) -> Any:
        """Keep the terms of these rows' losses, and give them for `gradient`."""

    def gradient(self, rows: slice, terms: Any) -> Tensor:
        """Gradient of each row's loss with respect to its outputs: float64 [rows, outputs]."""

    def metrics(self) -> Metrics:
        """Mean loss of all rows, and their accuracy."""


class CrossEntropy:
    """Cross-entropy of the softmax (book, sections 3.4 and 3.6); outputs are logits."""

    def __init__(self, targets: Tensor, num_outputs: int) -> None:
        self.labels = targets
        n, device = len(targets), targets.device
        self.shifted = torch.empty((n, num_outputs), dtype=torch.float64, device=device)
        self.totals = torch.empty((n, 1), dtype=torch.float64, device=device)

    def forward(self, rows: slice, outputs: Tensor) -> SoftmaxTerms:
        """Keep the shifted logits; the logarithm can wait."""
        terms = SoftmaxTerms.of(outputs)
        self.shifted[rows] = terms.shifted
        self.totals[rows] = terms.totals
        return terms

    def gradient(self, rows: slice, terms: SoftmaxTerms) -> Tensor:
        """``softmax(o) - y``."""
        return terms.gradient(self.labels[rows])

    def metrics(self) -> Metrics:
        """Mean of -log softmax of the true class, and accuracy."""
        losses = softmax.losses(self.shifted, self.totals, self.labels)
        correct = int((self.shifted.argmax(1) == self.labels).sum())
        return Metrics(loss=exact.mean(losses), accuracy=correct / len(self.labels))


class SquaredError:
    """Half the squared error (book, section 3.1); targets are float64 [..., n, outputs]."""

    def __init__(self, targets: Tensor, num_outputs: int) -> None:
        assert targets.shape[-1] == num_outputs
        self.targets = targets
        self.residuals = torch.empty_like(targets)

    def forward(self, rows: slice, outputs: Tensor) -> Tensor:
        """Keep the residuals."""
        residuals = outputs - self.targets[..., rows, :]
        self.residuals[..., rows, :] = residuals
        return residuals

    def gradient(self, rows: slice, terms: Tensor) -> Tensor:
        """The residuals."""
        return terms

    def metrics(self) -> Metrics:
        """Mean of half the squared residuals; accuracy is NaN."""
        return Metrics(loss=exact.mean(self.losses()), accuracy=math.nan)

    def metrics_of_each(self) -> list[Metrics]:
        """Metrics of every model of a stack."""
        return [Metrics(loss=exact.mean(x), accuracy=math.nan) for x in self.losses()]

    def losses(self) -> Tensor:
        """Half the square of every output's residual: [..., n * outputs]."""
        return (self.residuals * self.residuals).flatten(-2) * 0.5


LOSSES: dict[str, type[Loss]] = {"cross_entropy": CrossEntropy, "squared": SquaredError}
