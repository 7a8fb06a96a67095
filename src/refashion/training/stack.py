"""Models that are trained side by side, in one stack of batched products.

A sum of whole numbers is the same however it is computed, so each model of a stack has the very
bits that it has alone; small models are trained many times as fast.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from refashion.portable import exact
from refashion.training.engine import Examples, Fit, batches, order
from refashion.training.initial import Weights
from refashion.training.losses import SquaredError
from refashion.training.portable import PortableEngine, arithmetic, on_grid
from refashion.training.settings import Settings


def stackable(settings: Sequence[Settings], *parts: Sequence[Examples]) -> bool:
    """Whether a stack can train these models: they differ in seed and weight decay alone."""
    first = settings[0]
    return (
        len(settings) > 1
        and first.numerics == "portable"
        and first.loss == "squared"
        and not any(first.dropout)
        and all(_plain(s) == _plain(first) for s in settings)
        and all(len({own.inputs.shape for own in part}) == 1 for part in parts)
    )


def _plain(settings: Settings) -> Settings:
    """Without what may differ in a stack."""
    return replace(settings, seed=0, weight_decay=0.0)


class Stack:
    """All models in one, each tensor with a dimension more in front."""

    def __init__(
        self, settings: Sequence[Settings], starts: Sequence[Weights], device: torch.device
    ) -> None:
        self.settings = settings
        self.device = device
        start = {name: torch.stack([own[name] for own in starts]) for name in starts[0]}
        for name in start:
            if name.endswith("bias"):
                start[name] = start[name].unsqueeze(-2)
        decays = torch.tensor([s.weight_decay for s in settings], dtype=torch.float64)
        self.engine = PortableEngine(
            settings[0], start, device, weight_decay=decays[:, None, None].to(device)
        )
        self.models = torch.arange(len(settings), device=device)[:, None]

    def train_epoch(self, examples: Examples, epoch: int) -> list[Fit]:
        """One pass of minibatch steps, every model in an order of its own."""
        inputs, targets = examples.inputs, examples.targets
        models, n, width = inputs.shape
        with arithmetic(self.device):
            grid = on_grid(inputs)
            flat = grid.integers.view(-1, width)
            orders = torch.stack([order(s, n, epoch, self.device) for s in self.settings])
            loss = SquaredError(targets[self.models, orders], targets.shape[-1])
            for rows in batches(n, self.settings[0].batch_size):
                chosen = (orders[:, rows] + self.models * n).flatten()
                batch = flat.index_select(0, chosen).view(models, -1, width)
                self.engine.step(exact.Fixed(batch, grid.scale, grid.bits), loss, rows, epoch)
            return _fits(loss)

    def fit(self, examples: Examples) -> list[Fit]:
        """Loss of every model."""
        inputs, targets = examples.inputs, examples.targets
        loss = SquaredError(targets, targets.shape[-1])
        loss.see(slice(0, targets.shape[1]), self.engine.outputs(inputs))
        return _fits(loss)

    def weights(self) -> list[Weights]:
        """The present weights of every model."""
        stacked = {
            name: tensor.squeeze(-2) if name.endswith("bias") else tensor
            for name, tensor in self.engine.weights().items()
        }
        return [{k: v[i] for k, v in stacked.items()} for i in range(len(self.settings))]


def stack_examples(examples: Sequence[Examples]) -> Examples:
    """Examples of every model, with a dimension more in front."""
    return Examples(
        inputs=torch.stack([own.inputs for own in examples]),
        targets=torch.stack([own.targets for own in examples]),
    )


def _fits(loss: SquaredError) -> list[Fit]:
    return [Fit(loss=exact.mean(own), accuracy=torch.nan) for own in loss.losses()]
