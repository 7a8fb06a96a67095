"""Losses of the from-scratch engine, with their gradients by hand.

Of each loss, one function is called for every batch: it gives the gradient of each row's loss with
respect to its outputs, and terms to keep. The other makes the metrics from all rows' terms.
"""

import math

import torch
from torch import Tensor

from refashion.portable import exact, softmax
from refashion.training.engine import Metrics


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient ``softmax(o) - y`` (book, sections 3.4 and 3.6) of logits, float64 [n, k].

    The terms are shifted logits and totals, [n, k + 1]: the logarithm can wait.
    """
    shifted, exponentials, totals = softmax.terms(logits)
    gradients = softmax.gradients(exponentials, totals, labels)
    return gradients, torch.cat([shifted, totals], 1)


def cross_entropy_metrics(terms: Tensor, labels: Tensor) -> Metrics:
    """Mean of -log softmax of the true class, and accuracy."""
    shifted, totals = terms[:, :-1], terms[:, -1:]
    correct = int((shifted.argmax(1) == labels).sum())
    losses = softmax.losses(shifted, totals, labels)
    return Metrics(loss=exact.mean(losses), accuracy=correct / len(labels))


def squared_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals (book, section 3.1), both as gradient and as terms: float64 [..., n, outputs]."""
    residuals = outputs - targets
    return residuals, residuals


def squared_error_metrics(residuals: Tensor, targets: Tensor) -> Metrics:
    """Mean of half the squared residuals; accuracy is NaN."""
    losses = (residuals * residuals).flatten() * 0.5
    return Metrics(loss=exact.mean(losses), accuracy=math.nan)


LOSSES = {
    "cross_entropy": (cross_entropy, cross_entropy_metrics),
    "squared": (squared_error, squared_error_metrics),
}
