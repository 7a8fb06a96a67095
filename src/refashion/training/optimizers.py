"""Optimizers of the from-scratch engine; weight decay spares the biases."""

from collections.abc import Sequence

import torch
from torch import Tensor

from refashion.portable import functions
from refashion.training.engine import per_model
from refashion.training.settings import Settings

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer:
    """Changes float32 parameters in place: a weight and a bias in turn, layer by layer.

    Of one model, or of a stack of models with settings of their own.
    """

    def __init__(self, models: Sequence[Settings], parameters: Sequence[Tensor]) -> None:
        self.parameters, device = parameters, parameters[0].device
        self.state: dict[str, Tensor] = {}  # all else that steps change
        self.lr = per_model([s.lr for s in models], device)
        decay = per_model([s.weight_decay for s in models], device)
        self.decay = torch.as_tensor(decay, dtype=torch.float64, device=device)
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
    """Minibatch stochastic gradient descent with momentum (book, sections 3.6 and 11.6).

    A model without momentum may have a neighbour with: zero times its velocity changes a gradient
    by a zero's sign at most, and no parameter, since none is -0.0.
    """

    def __init__(self, models: Sequence[Settings], parameters: Sequence[Tensor]) -> None:
        super().__init__(models, parameters)
        device = parameters[0].device
        self.lr = per_model([s.lr for s in models], device, torch.float32)
        self.momentum = per_model([s.momentum for s in models], device, torch.float32)
        moved = any(s.momentum for s in models)
        self.velocities = [torch.zeros_like(p) for p in parameters] if moved else []
        self.state = {f"velocity.{i}": v for i, v in enumerate(self.velocities)}

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

    def __init__(self, models: Sequence[Settings], parameters: Sequence[Tensor]) -> None:
        super().__init__(models, parameters)
        if isinstance(self.lr, Tensor):
            self.lr = torch.cat([self.lr.expand(p.shape).flatten() for p in parameters])
        self.sizes = [p.numel() for p in parameters]
        moments = torch.zeros(2, sum(self.sizes), dtype=torch.float64, device=self.decay.device)
        self.mean, self.square = moments
        self.powers = torch.ones(2, dtype=torch.float64, device="cpu")  # of both betas
        self.state = {"moments": moments, "powers": self.powers}

    def step(self, gradients: Sequence[Tensor]) -> None:
        """``w -= lr * mean / (sqrt(square) + epsilon)``, both moments corrected for their start."""
        beta1, beta2 = BETAS
        # By products: a library's power function may be rounded otherwise elsewhere.
        power1, power2 = self.powers.mul_(self.powers.new_tensor(BETAS)).tolist()
        wide = [gradient.to(torch.float64) for gradient in gradients]
        self._penalise(wide)
        gradient = torch.cat([g.flatten() for g in wide])
        self.mean.mul_(beta1).add_(gradient * (1 - beta1))
        self.square.mul_(beta2).add_(gradient.mul_(gradient).mul_(1 - beta2))
        root = functions.sqrt(self.square * (1 / (1 - power2))).add_(EPSILON)
        rate, rest = self.lr, 1 - power1
        # A tensor divided by a number is multiplied by its reciprocal on CUDA.
        rate = rate / (torch.full_like(rate, rest) if isinstance(rate, Tensor) else rest)
        step = (self.mean * rate).div_(root).to(torch.float32)
        for parameter, part in zip(self.parameters, step.split(self.sizes), strict=True):
            parameter.sub_(part.view_as(parameter))


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "sgd": SGD}
