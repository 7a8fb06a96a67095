"""Losses of the from-scratch engine, with their gradients by hand.

Of each loss, one function is called for every batch: it gives the gradient of each row's loss with
respect to its outputs, and terms to keep. The other makes the metrics from all rows' terms.
"""

import math

import torch
from torch import Tensor

from refashion.portable import exact, softmax
from refashion.training.engine import Metrics

PIECE = 2**16  # rows whose losses are computed at once: logarithms take ten times their memory


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient ``softmax(o) - y`` (book, sections 3.4 and 3.6) of logits, float64 [..., n, k].

    The terms are the shifted logit of the true class, the total, and whether that class is the
    likeliest, [..., n, 3]: the logarithm can wait.
    """
    shifted, exponentials, totals = softmax.terms(logits)
    gradients = softmax.gradients(exponentials, totals, labels)
    classes = labels[..., None].expand(totals.shape)
    correct = shifted.max(-1, keepdim=True).indices == classes
    return gradients, torch.cat([shifted.gather(-1, classes), totals, correct], -1)


def cross_entropy_metrics(terms: Tensor) -> Metrics:
    """Mean of -log softmax of the true class, and accuracy."""
    shifted, totals, correct = terms.unbind(-1)
    pieces = zip(shifted.split(PIECE), totals.split(PIECE), strict=True)
    losses = torch.cat([softmax.losses(*piece) for piece in pieces])
    return Metrics(loss=exact.mean(losses), accuracy=int(correct.count_nonzero()) / len(correct))


def squared_error(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals (book, section 3.1), float64 [..., n, outputs]; a row's loss is their mean."""
    residuals = outputs - targets
    return residuals / residuals.shape[-1], residuals


def squared_error_metrics(residuals: Tensor) -> Metrics:
    """Mean of half the squared residuals; accuracy is NaN."""
    losses = (residuals * residuals).flatten() * 0.5
    return Metrics(loss=exact.mean(losses), accuracy=math.nan)


LOSSES = {
    "cross_entropy": (cross_entropy, cross_entropy_metrics),
    "squared": (squared_error, squared_error_metrics),
}
