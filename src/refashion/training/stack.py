"""Models that are trained side by side, in batched products.

Sums of whole numbers do not depend on how they are computed, so each model of a stack has the bits
that it has alone; small models are trained many times as fast.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from refashion.portable import exact
from refashion.training import initial
from refashion.training.engine import Examples, Metrics, batches, order
from refashion.training.initial import Weights
from refashion.training.portable import PortableEngine, arithmetic, on_grid
from refashion.training.settings import Settings


class Stack:
    """Models that differ in data, seed and weight decay, as one; the first dimension is theirs."""

    def __init__(self, settings: Sequence[Settings], device: torch.device) -> None:
        """Begin from the initial weights of every model."""
        self.settings = settings
        self.device = device
        starts = [initial.of(s) for s in settings]
        start = {name: torch.stack([weights[name] for weights in starts]) for name in starts[0]}
        for name in start:
            if name.endswith("bias"):
                start[name] = start[name].unsqueeze(-2)
        decays = torch.tensor([s.weight_decay for s in settings], dtype=torch.float64)
        self.engine = PortableEngine(
            settings[0], start, device, weight_decay=decays[:, None, None].to(device)
        )
        self.models = torch.arange(len(settings), device=device)[:, None]

    def train_epoch(self, examples: Examples, epoch: int) -> list[Metrics]:
        """One pass of minibatch steps, every model in its own order."""
        inputs, targets = examples.inputs, examples.targets
        models, n, width = inputs.shape
        with arithmetic(self.device):
            grid = on_grid(inputs)
            flat = grid.integers.view(-1, width)
            orders = torch.stack([order(s, n, epoch, self.device) for s in self.settings])
            targets, residuals = targets[self.models, orders], []
            for rows in batches(n, self.settings[0].batch_size):
                indices = (orders[:, rows] + self.models * n).flatten()
                batch = flat.index_select(0, indices).view(models, -1, width)
                x = exact.Fixed(batch, grid.scale, grid.bits)
                residuals.append(self.engine.step(x, targets[:, rows], rows, epoch))
            return self._metrics(torch.cat(residuals, 1), targets)

    def evaluate(self, examples: Examples) -> list[Metrics]:
        """Loss of every model, without dropout."""
        _, residuals = self.engine.loss(self.engine.outputs(examples.inputs), examples.targets)
        return self._metrics(residuals, examples.targets)

    def _metrics(self, residuals: Tensor, targets: Tensor) -> list[Metrics]:
        return [self.engine.metrics(r, t) for r, t in zip(residuals, targets, strict=True)]

    def weights(self) -> list[Weights]:
        """The present weights of every model."""
        stacked = {
            name: tensor.squeeze(-2) if name.endswith("bias") else tensor
            for name, tensor in self.engine.weights().items()
        }
        return [{k: v[i] for k, v in stacked.items()} for i in range(len(self.settings))]


def stack_examples(examples: Sequence[Examples]) -> Examples:
    """Examples of every model: inputs [models, n, inputs], targets [models, n, outputs]."""
    return Examples(
        inputs=torch.stack([e.inputs for e in examples]),
        targets=torch.stack([e.targets for e in examples]),
    )
