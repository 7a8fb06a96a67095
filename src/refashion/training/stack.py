"""Models that are trained side by side, in wide and batched products.

Sums of whole numbers do not depend on how they are computed, so each model of a stack has the bits
that it has alone. Models with one seed and one training set share batches: their first layer is one
product with all their weights.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from refashion.portable import exact
from refashion.training.engine import Examples, Metrics, Reader, batches, order, per_model
from refashion.training.initial import Weights
from refashion.training.portable import EVAL_ROWS, PortableEngine, arithmetic, on_grid
from refashion.training.settings import Settings


class Stack:
    """Models that differ in data, seed, rates and dropout; the first dimension is theirs."""

    def __init__(
        self, settings: Sequence[Settings], starts: Sequence[Weights], device: torch.device
    ) -> None:
        """Begin from the weights of every model.

        In memory every unit's weights, of all its inputs, lie in a row: so do the results of wide
        products, and a number of every model meets long rows.
        """
        self.settings = settings
        self.device = device
        start = {
            name: torch.stack([torch.atleast_2d(weights[name]).mT for weights in starts]).mT
            for name in starts[0]
        }
        self.engine = PortableEngine(settings[0], start, device, settings)

    def train_epoch(self, examples: Sequence[Examples], epoch: int) -> list[Metrics]:
        """One pass of minibatch steps, every model in its own order."""
        one_order = len({s.seed for s in self.settings}) == 1
        sets = _distinct(examples) if one_order else examples
        n = len(sets[0])
        with arithmetic(self.device):
            orders = [order(s, n, epoch, self.device) for s in self.settings[: len(sets)]]
            sets, grids = zip(*map(on_grid, sets), strict=True)
            scale = per_model([float(g.scale) for g in grids], self.device)
            inputs = [Reader(e, o, len(sets)) for e, o in zip(sets, orders, strict=True)]
            terms = []
            for rows in batches(n, self.settings[0].batch_size):
                targets = _joined(
                    [e.targets.index_select(0, o[rows]) for e, o in zip(sets, orders, strict=True)]
                )
                x = exact.Fixed(_joined([x[rows] for x in inputs]), scale, grids[0].bits)
                terms.append(self.engine.step(x, targets, rows, epoch))
            return [self.engine.metrics(of_model) for of_model in torch.cat(terms, -2)]

    def evaluate(self, examples: Sequence[Examples]) -> list[Metrics]:
        """Loss and accuracy of every model, without dropout."""
        sets = _distinct(examples)
        size = max(EVAL_ROWS // len(self.settings), self.settings[0].batch_size)
        pieces, inputs, terms = (
            batches(len(sets[0]), size),
            [Reader(e, None, len(sets)) for e in sets],
            [],
        )
        with arithmetic(self.device):
            outputs = self.engine.forward(_joined([x[rows] for x in inputs]) for rows in pieces)
            for rows, of_piece in zip(pieces, outputs, strict=True):
                targets = _joined([e.targets[rows] for e in sets])
                terms.append(self.engine.loss(of_piece, targets)[1])
            return [self.engine.metrics(of_model) for of_model in torch.cat(terms, -2)]

    def optimizer_state(self) -> Mapping[str, Tensor]:
        """What the optimizer of all models remembers of its steps."""
        return self.engine.optimizer_state()

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `optimizer_state` gave."""
        self.engine.load_optimizer_state(state)

    def weights(self) -> list[Weights]:
        """The present weights of every model."""
        stacked = self.engine.weights()
        stacked |= {name: b[:, 0] for name, b in stacked.items() if name.endswith("bias")}
        rows = torch.contiguous_format
        return [
            {name: tensor[i].clone(memory_format=rows) for name, tensor in stacked.items()}
            for i in range(len(self.settings))
        ]


def _distinct(examples: Sequence[Examples]) -> Sequence[Examples]:
    """The one set of examples that all models share, or that of each."""
    return examples[:1] if len({id(e) for e in examples}) == 1 else examples


def _joined(tensors: list[Tensor]) -> Tensor:
    """One tensor as it is; several stacked."""
    return torch.stack(tensors) if tensors[1:] else tensors[0]
