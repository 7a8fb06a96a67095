"""Optimizers of the from-scratch engine; weight decay spares the biases."""

from collections.abc import Sequence

import torch
from torch import Tensor

from refashion.portable import functions
from refashion.training.settings import Settings

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer:
    """Changes float32 parameters in place: a weight and a bias in turn, layer by layer.

    The weight decay of a stack of models is float64 [models, 1, 1].
    """

    def __init__(
        self, settings: Settings, parameters: Sequence[Tensor], weight_decay: float | Tensor
    ) -> None:
        self.lr, self.parameters = settings.lr, parameters
        device = parameters[0].device
        self.decay = torch.as_tensor(weight_decay, dtype=torch.float64, device=device)
        self.decaying, self.spared = bool(self.decay.any()), self.decay == 0

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step; the gradients, in the order of the parameters, are overwritten."""
        raise NotImplementedError

    def _penalise(self, gradients: Sequence[Tensor]) -> None:
        """Add ``decay * weight``; for models without decay -0.0, which changes no number.

        Zero times infinity would be NaN, and -0.0 + 0.0 is 0.0.
        """
        if self.decaying:
            for weight, gradient in zip(self.parameters[::2], gradients[::2], strict=True):
                penalty = weight.to(gradient.dtype) * self.decay.to(gradient.dtype)
                gradient.add_(penalty.masked_fill_(self.spared, -0.0))


class SGD(Optimizer):
    """Minibatch stochastic gradient descent with momentum (book, sections 3.6 and 11.6)."""

    def __init__(
        self, settings: Settings, parameters: Sequence[Tensor], weight_decay: float | Tensor
    ) -> None:
        super().__init__(settings, parameters, weight_decay)
        self.momentum = settings.momentum
        self.velocities = [torch.zeros_like(p) for p in parameters] if self.momentum else []

    def step(self, gradients: Sequence[Tensor]) -> None:
        """``w -= lr * gradient``; with momentum, of the velocity that gradients add up to."""
        self._penalise(gradients)
        for velocity, gradient in zip(self.velocities, gradients, strict=False):
            gradient.copy_(velocity.mul_(self.momentum).add_(gradient))
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.sub_(gradient.mul_(self.lr))


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015; book, section 11.10), with the penalty in the gradient.

    Moments are float64 and all parameters lie in one vector: every operation is made once.
    """

    def __init__(
        self, settings: Settings, parameters: Sequence[Tensor], weight_decay: float | Tensor
    ) -> None:
        super().__init__(settings, parameters, weight_decay)
        self.sizes = [p.numel() for p in parameters]
        moments = torch.zeros(2, sum(self.sizes), dtype=torch.float64, device=self.decay.device)
        self.mean, self.square = moments
        self.powers = (1.0, 1.0)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """``w -= lr * mean / (sqrt(square) + epsilon)``, both moments corrected for their start."""
        beta1, beta2 = BETAS
        # By products: a library's power function may be rounded otherwise elsewhere.
        self.powers = (self.powers[0] * beta1, self.powers[1] * beta2)
        wide = [gradient.to(torch.float64) for gradient in gradients]
        self._penalise(wide)
        gradient = torch.cat([g.flatten() for g in wide])
        self.mean.mul_(beta1).add_(gradient * (1 - beta1))
        self.square.mul_(beta2).add_(gradient.mul_(gradient).mul_(1 - beta2))
        root = functions.sqrt(self.square * (1 / (1 - self.powers[1]))).add_(EPSILON)
        step = (self.mean * (self.lr / (1 - self.powers[0]))).div_(root).to(torch.float32)
        for parameter, part in zip(self.parameters, step.split(self.sizes), strict=True):
            parameter.sub_(part.view_as(parameter))


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}
