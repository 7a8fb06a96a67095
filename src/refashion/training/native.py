"""The concise engine: ``torch.nn``, as fast as the hardware allows (book, 3.3, 3.7, 4.3, 4.6).

Deterministic on one machine with one software stack; elsewhere its bits differ.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from refashion.base.errors import UserError
from refashion.portable import streams
from refashion.training.engine import Examples, Metrics, Reader, batches, mask, order
from refashion.training.initial import Weights
from refashion.training.settings import Settings
from refashion.training.workers import ALONE, Workers

EVAL_ROWS = 8192  # examples of one forward pass without learning

LARGEST = 1e37
"""Learning rate and weight decay up to which an optimizer's own factors are float32's too."""


class MaskedDropout(nn.Module):
    """Dropout whose masks are given: both engines drop the same units."""

    mask: Tensor
    """For the present batch: 1 for units that stay, else 0."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.scale = 1 / streams.keep_probability(probability)

    def forward(self, hidden: Tensor) -> Tensor:
        """Drop what the mask drops and scale up the rest; in evaluation do nothing."""
        return hidden * (self.mask * self.scale) if self.training else hidden


class NativeEngine:
    """A single model, with the methods of `refashion.training.portable.PortableEngine`."""

    def __init__(
        self,
        models: Sequence[Settings],
        starts: Sequence[Weights],
        device: torch.device,
        workers: Workers = ALONE,
    ) -> None:
        if workers.size > 1:
            raise UserError("numerics: native trains in one process; use portable, or one process")
        (settings,), (start,) = models, starts
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.settings = settings
        self.device = device
        self.dropouts = {i: MaskedDropout(p) for i, p in enumerate(settings.dropout) if p}
        self.linears = []
        blocks: list[nn.Module] = []
        for layer, shape in enumerate(pairwise(settings.widths)):
            linear = nn.utils.skip_init(nn.Linear, *shape, device=device, dtype=torch.float32)
            with torch.no_grad():
                linear.weight.copy_(start[f"layers.{layer}.weight"].mT)
                linear.bias.copy_(start[f"layers.{layer}.bias"])
            self.linears.append(linear)
            blocks += [linear, nn.ReLU()]
            if layer in self.dropouts:
                blocks.append(self.dropouts[layer])
        self.net = nn.Sequential(*blocks[:-1])  # no ReLU after the outputs
        squared = settings.loss == "squared"
        self.loss = half_squared_error if squared else functional.cross_entropy
        lr, weight_decay = map(_bounded, (settings.lr, settings.weight_decay))
        groups: list[dict[str, Any]] = [
            {"params": [x.weight for x in self.linears], "weight_decay": weight_decay},
            {"params": [x.bias for x in self.linears]},
        ]
        self.optimizer: torch.optim.Optimizer
        if settings.optimizer == "adam":
            self.optimizer = torch.optim.Adam(groups, lr=lr)
        else:
            self.optimizer = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)

    def train_epoch(self, examples: Sequence[Examples], epoch: int) -> list[Metrics]:
        """One pass of minibatch steps."""
        (known,) = examples
        n = len(known)
        losses, correct = [], []
        self.net.train()
        indices = order(self.settings, n, epoch, self.device)
        inputs = Reader(known, indices)
        for rows in batches(n, self.settings.batch_size):
            for layer, dropout in self.dropouts.items():
                dropout.mask = mask(self.settings, rows, epoch, layer, self.device)
            targets = known.targets.index_select(0, indices[rows])
            outputs = self.net(_scaled(inputs[rows]))
            loss = self.loss(outputs, targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach() * len(targets))
            correct.append(_correct(outputs.detach(), targets))
        return _mean(losses, correct, n)

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Examples]) -> list[Metrics]:
        """Loss and accuracy without dropout."""
        (known,) = examples
        self.net.eval()
        inputs, losses, correct = Reader(known), [], []
        for rows in batches(len(known), EVAL_ROWS):
            targets = known.targets[rows]
            outputs = self.net(_scaled(inputs[rows]))
            losses.append(self.loss(outputs, targets) * len(targets))
            correct.append(_correct(outputs, targets))
        return _mean(losses, correct, len(known))

    def gradients(self, examples: Examples) -> Weights:
        """Gradients of the mean loss, without dropout."""
        self.net.eval()
        self.optimizer.zero_grad()
        inputs = Reader(examples)[0 : len(examples)]
        self.loss(self.net(_scaled(inputs)), examples.targets).backward()
        return _named([(x.weight.grad, x.bias.grad) for x in self.linears])

    def weights(self) -> list[Weights]:
        """The present weights."""
        return [_named([(x.weight.detach(), x.bias.detach()) for x in self.linears])]

    def optimizer_state(self) -> Mapping[str, Tensor]:
        """What the optimizer remembers of its steps: its own tensors, not copies."""
        states = self.optimizer.state_dict()["state"].items()
        return {
            f"{i}.{name}": value
            for i, state in states
            for name, value in state.items()
            if isinstance(value, Tensor)
        }

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `optimizer_state` gave."""
        states: dict[int, dict[str, Tensor]] = defaultdict(dict)
        for key, tensor in state.items():
            i, _, name = key.partition(".")
            states[int(i)][name] = tensor.clone()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": states})


def _bounded(factor: float) -> float:
    """A learning rate or weight decay, or infinity: torch raises for what float32 cannot hold."""
    return factor if factor <= LARGEST else math.inf


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the mean squared error (book, section 3.1); targets may be of higher precision."""
    return functional.mse_loss(outputs, targets.to(outputs.dtype)) * 0.5


def _named(layers: list[tuple[Any, Any]]) -> Weights:
    """Tensors of every layer by name; weights [inputs, units]."""
    result = {}
    for layer, (weight, bias) in enumerate(layers):
        result[f"layers.{layer}.weight"] = weight.mT.contiguous().cpu()
        result[f"layers.{layer}.bias"] = bias.clone().cpu()
    return result


def _scaled(inputs: Tensor) -> Tensor:
    """Pixels to [0, 1], float32; features as they are."""
    return inputs.to(torch.float32).mul_(1 / 255) if inputs.dtype == torch.uint8 else inputs


def _correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """How many likeliest classes are the true ones; NaN without classes."""
    if targets.is_floating_point():
        return outputs.new_tensor(torch.nan)
    return (outputs.argmax(1) == targets).sum()


def _mean(losses: list[Tensor], correct: list[Tensor], n: int) -> list[Metrics]:
    loss = float(torch.stack(losses).sum(dtype=torch.float64)) / n
    return [Metrics(loss=loss, accuracy=float(torch.stack(correct).sum()) / n)]
