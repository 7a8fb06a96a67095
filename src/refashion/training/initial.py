"""Where a training starts: the same for both engines."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training.settings import Settings

CONSTANT = 0.01
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
    """Where a training with these settings starts: float32, on the CPU."""
    return weights(settings.widths, settings.seed, settings.initialisation)


def weights(widths: tuple[int, ...], seed: int, scheme: str = "small_normal") -> Weights:
    """Initial weights; biases are 0.

    Parameters
    ----------
    widths
        Units of every layer, from the inputs to the outputs.
    seed
        Of the streams, one for every layer.
    scheme
        One of `SCHEMES`, or ``constant``: all weights 0.01, which no unit tells from another.

    Returns
    -------
    Weights
        float32, on the CPU.
    """
    result = {}
    for layer, shape in enumerate(pairwise(widths)):
        if scheme == "constant":
            numbers = torch.full(shape, CONSTANT, dtype=torch.float64)
        else:
            numbers = streams.normal(shape, streams.key(seed, Purpose.INITIAL, layer))
            numbers.mul_(SCHEMES[scheme](*shape))
        result[f"layers.{layer}.weight"] = numbers.to(torch.float32)
        result[f"layers.{layer}.bias"] = torch.zeros(shape[1], dtype=torch.float32)
    return result
