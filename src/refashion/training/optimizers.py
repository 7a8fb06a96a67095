"""Optimizers of the from-scratch engine; weight decay spares the biases."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from refashion.portable import functions
from refashion.training.settings import Settings

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer(Protocol):
    """Changes parameters in place."""

    def __init__(
        self, settings: Settings, parameters: Sequence[Tensor], weight_decay: float | Tensor
    ) -> None:
        """Begin with float32 parameters: a weight and a bias in turn, layer by layer.

        The weight decay of a stack of models is float64 [models, 1, 1].
        """

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step; the gradients, in the order of the parameters, are overwritten."""


class SGD:
    """Minibatch stochastic gradient descent with momentum (book, sections 3.6 and 11.6)."""

    def __init__(
        self, settings: Settings, parameters: Sequence[Tensor], weight_decay: float | Tensor
    ) -> None:
        self.lr = settings.lr
        self.momentum = settings.momentum
        self.decay = torch.as_tensor(weight_decay, dtype=torch.float32, device=parameters[0].device)
        self.decaying, self.spared = bool(self.decay.any()), _spared(self.decay)
        self.parameters = parameters
        self.velocities = [torch.zeros_like(p) for p in parameters] if self.momentum else []

    def step(self, gradients: Sequence[Tensor]) -> None:
        """``w -= lr * gradient``; with momentum, of the velocity that gradients add up to."""
        for i, (parameter, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            if self.decaying and i % 2 == 0:
                gradient.add_(_penalty(parameter, self.decay, self.spared))
            if self.momentum:
                gradient = self.velocities[i].mul_(self.momentum).add_(gradient).clone()
            parameter.sub_(gradient.mul_(self.lr))


class Adam:
    """Adam (Kingma and Ba 2015; book, section 11.10), with the penalty in the gradient.

    Moments are float64 and all parameters lie in one vector: every operation is made once.
    """

    def __init__(
        self, settings: Settings, parameters: Sequence[Tensor], weight_decay: float | Tensor
    ) -> None:
        self.lr = settings.lr
        self.parameters = parameters
        self.sizes = [p.numel() for p in parameters]
        wide = [torch.ones_like(p, dtype=torch.float64) for p in parameters]
        decays = [weight_decay, 0.0] * (len(parameters) // 2)
        self.decay = _flat([ones * decay for ones, decay in zip(wide, decays, strict=True)])
        self.decaying, self.spared = bool(self.decay.any()), _spared(self.decay)
        self.mean = torch.zeros_like(self.decay)
        self.square = torch.zeros_like(self.decay)
        self.powers = (1.0, 1.0)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """``w -= lr * mean / (sqrt(square) + epsilon)``, both moments corrected for their start."""
        beta1, beta2 = BETAS
        # By products: a library's power function may be rounded otherwise elsewhere.
        self.powers = (self.powers[0] * beta1, self.powers[1] * beta2)
        gradient = _flat(gradients)
        if self.decaying:
            gradient.add_(_penalty(_flat(self.parameters), self.decay, self.spared))
        self.mean.mul_(beta1).add_(gradient * (1 - beta1))
        self.square.mul_(beta2).add_(gradient.mul_(gradient).mul_(1 - beta2))
        root = functions.sqrt(self.square * (1 / (1 - self.powers[1]))).add_(EPSILON)
        step = (self.mean * (self.lr / (1 - self.powers[0]))).div_(root).to(torch.float32)
        for parameter, part in zip(self.parameters, step.split(self.sizes), strict=True):
            parameter.sub_(part.view_as(parameter))


def _spared(decay: Tensor) -> Tensor | None:
    """Mask of the parameters without a penalty; None if all have one."""
    spared = decay == 0
    return spared if bool(spared.any()) else None


def _penalty(parameters: Tensor, decay: Tensor, spared: Tensor | None) -> Tensor:
    """``decay * parameters``; for the spared ones -0.0, which changes no number it is added to.

    Zero times infinity would be NaN, and -0.0 + 0.0 is 0.0.
    """
    penalty = parameters * decay
    return penalty if spared is None else penalty.masked_fill_(spared, -0.0)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers as one vector, float64."""
    return torch.cat([t.flatten() for t in tensors]).to(torch.float64)


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}
