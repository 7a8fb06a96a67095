"""Where a training starts: the same for both engines."""

from itertools import pairwise

import torch
from torch import Tensor

from refashion.portable import streams
from refashion.portable.streams import Purpose

STANDARD_DEVIATION = 0.01
Weights = dict[str, Tensor]
"""``layers.0.weight`` [inputs, units], ``layers.0.bias`` [units], ``layers.1.weight``, ..."""


def weights(widths: tuple[int, ...], seed: int) -> Weights:
    """Initial weights N(0, 0.01) and biases 0, as in the book (sections 3.6 and 4.2).

    Parameters
    ----------
    widths
        Units of every layer, from the inputs to the classes.
    seed
        Of the streams, one for every layer.

    Returns
    -------
    Weights
        float32, on the CPU.
    """
    result = {}
    for layer, shape in enumerate(pairwise(widths)):
        numbers = streams.normal(shape, streams.key(seed, Purpose.INITIAL, layer))
        result[f"layers.{layer}.weight"] = (numbers * STANDARD_DEVIATION).to(torch.float32)
        result[f"layers.{layer}.bias"] = torch.zeros(shape[1])
    return result
