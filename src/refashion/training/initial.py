"""Initial weights, the same for both engines."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training.settings import Settings

SCHEMES: dict[str, Callable[[int, int], float]] = {
    "small_normal": lambda inputs, units: 0.01,
    "unit_normal": lambda inputs, units: 1.0,
    "xavier": lambda inputs, units: math.sqrt(2 / (inputs + units)),
    "he": lambda inputs, units: math.sqrt(2 / inputs),
}
"""Standard deviation of a layer's normal weights, by scheme: N(0, 0.01) as in the book's sections
3.6 and 4.2, N(0, 1) as in 4.5, Glorot and Bengio 2010 (4.8), and He et al. 2015."""

Weights = dict[str, Tensor]
"""``layers.0.weight`` [inputs, units], ``layers.0.bias`` [units], ``layers.1.weight``, ..."""


def of(settings: Settings) -> Weights:
    """Initial weights: float32, on the CPU; biases are 0, and every layer has its own stream.

    ``constant`` makes all weights 0.01, so that no unit can be told from another.
    """
    weights = {}
    for layer, shape in enumerate(pairwise(settings.widths)):
        if settings.initialisation == "constant":
            numbers = torch.full(shape, 0.01, dtype=torch.float64, device="cpu")
        else:
            numbers = streams.normal(shape, streams.key(settings.seed, Purpose.INITIAL, layer))
            numbers.mul_(SCHEMES[settings.initialisation](*shape))
        weights[f"layers.{layer}.weight"] = numbers.to(torch.float32)
        weights[f"layers.{layer}.bias"] = numbers.new_zeros(shape[1], dtype=torch.float32)
    return weights
