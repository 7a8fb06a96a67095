"""The book's networks, described once for all contenders."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

BATCH_SIZE = 256


class Network(NamedTuple):
    """A network as the book trains it."""

    hidden: tuple[int, ...]
    """Units of each hidden layer."""

    dropout: tuple[float, ...]
    """Probability of dropout after each hidden layer."""

    lr: float
    """Learning rate."""


NETWORKS = {
    "softmax": Network((), (), 0.1),
    "mlp": Network((256,), (0.0,), 0.1),
    "dropout": Network((256, 256), (0.2, 0.5), 0.5),
}


def sequential(variant: str, linear: Callable[[int, int], nn.Linear] = nn.Linear) -> nn.Sequential:
    """A network of torch's modules, with the book's first weights: N(0, 0.01), biases 0.

    Parameters
    ----------
    variant
        Name in `NETWORKS`.
    linear
        Makes a linear layer of so many inputs and outputs.
    """
    # Drawn by numpy: torch's own normal_ depends on settings that are to differ in training alone.
    generator = np.random.default_rng(0)

    def layer(inputs: int, outputs: int) -> nn.Linear:
        made = linear(inputs, outputs)
        with torch.no_grad():
            made.weight.copy_(torch.from_numpy(generator.normal(0, 0.01, (outputs, inputs))))
            made.bias.zero_()
        return made

    modules: list[nn.Module] = [nn.Flatten()]
    inputs = 784
    for outputs, probability in zip(*NETWORKS[variant][:2], strict=True):
        modules += [layer(inputs, outputs), nn.ReLU()]
        if probability:
            modules.append(nn.Dropout(probability))
        inputs = outputs
    return nn.Sequential(*modules, layer(inputs, 10))
