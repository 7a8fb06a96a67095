"""Sizes of weights, from exact sums; biases aside."""

import math

import torch

from refashion.portable import exact
from refashion.training.initial import Weights

SQUARE_BITS = 16


def l0(weights: Weights) -> int:
    """How many weights are not zero."""
    return sum(int((w != 0).sum()) for w in _only_weights(weights))


def l1(weights: Weights) -> float:
    """Sum of the magnitudes, on a grid of 30 bits."""
    rows = (w.to(torch.float64).abs().reshape(1, -1) for w in _only_weights(weights))
    return math.fsum(float(exact.total(exact.quantise(row, 30), -1)[0]) for row in rows)


def l2(weights: Weights) -> float:
    """Euclidean norm, from squares of numbers of 16 bits."""
    squares = 0.0
    for w in _only_weights(weights):
        row = exact.quantise(w.reshape(1, -1).to(torch.float64), SQUARE_BITS)
        squares += float(exact.product(row, row.mT))
    return math.sqrt(squares)


def linf(weights: Weights) -> float:
    """Largest magnitude."""
    return max(float(w.abs().max()) for w in _only_weights(weights))


def _only_weights(weights: Weights) -> list[torch.Tensor]:
    return [tensor for name, tensor in weights.items() if name.endswith("weight")]
