"""The from-scratch engine: every gradient by hand, the same bits on every machine.

Softmax regression (book, 3.4-3.6), the multilayer perceptron (4.1-4.2), dropout (4.6), weight
decay (4.5) and linear regression (3.1), on exact products (`refashion.portable.exact`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from refashion.base.errors import UserError
from refashion.portable import exact, streams
from refashion.portable.multiply import InexactError, require_exact_float64
from refashion.training.engine import (
    Examples,
    Metrics,
    Reader,
    batches,
    mask,
    order,
    per_model,
)
from refashion.training.initial import Weights
from refashion.training.losses import LOSSES
from refashion.training.optimizers import OPTIMIZERS
from refashion.training.settings import Settings
from refashion.training.workers import ALONE, Workers

CONTRACT = "portable/2"
PIXEL_BITS = 14  # of all else that enters a product where the inputs are pixels: two int8 limbs
FEATURE_BITS = 20  # of all that enters a product where the inputs are float32 themselves
PIXEL_SCALE = 1 / 255
EVAL_ROWS = 1024  # examples of one forward pass without learning
GRAIN = 2**15  # numbers of a tensor that torch gives to one thread, at least


class PortableEngine:
    """Models in training, side by side in wide and batched products; one alone is the plain case.

    Sums of whole numbers do not depend on how they are computed, so each model has beside others
    the bits that it has alone. Tensors of several models have these as first dimension: weights
    [models, inputs, units] and biases [models, 1, units]. Models with one seed and one training set
    share batches: their first layer is one product with all their weights.
    """

    def __init__(
        self,
        models: Sequence[Settings],
        starts: Sequence[Weights],
        device: torch.device,
        workers: Workers = ALONE,
    ) -> None:
        """Begin from the weights of every model.

        The models may differ in seed, learning rate, weight decay, momentum and dropout. Workers
        share the rows of each batch of a single model.
        """
        self.models, self.settings = models, models[0]
        self.device = device
        self.workers = workers
        layers = range(len(self.settings.widths) - 1)
        names = [f"layers.{i}.{kind}" for i in layers for kind in ("weight", "bias")]
        self.parameters = {
            name: _stacked([start[name] for start in starts]).to(device, copy=True)
            for name in names
        }
        parameters = list(self.parameters.values())
        self.w, self.b = parameters[::2], parameters[1::2]
        self.optimizer = OPTIMIZERS[self.settings.optimizer](models, parameters)
        self.scales = [  # of what dropout spares
            per_model([1 / streams.keep_probability(p) if p else 1.0 for p in layer], device)
            for layer in zip(*(s.dropout for s in models), strict=True)
        ]
        self.loss, self.metrics = LOSSES[self.settings.loss]

    def train_epoch(
        self,
        examples: Sequence[Examples],
        epoch: int,
        after_step: Callable[[int], None] | None = None,
    ) -> list[Metrics]:
        """One pass over every model's examples, as many of each, in an order of its own.

        Metrics are of each batch before its step, averaged (book, 3.6). `after_step` is called with
        the number of every step that is done, from 1.
        """
        one_order = len({s.seed for s in self.models}) == 1
        sets = _distinct(examples) if one_order else examples
        n = len(sets[0])
        with arithmetic(self.device):
            orders = [order(s, n, epoch, self.device) for s in self.models[: len(sets)]]
            targets = [e.targets.index_select(0, o) for e, o in zip(sets, orders, strict=True)]
            sets, grids = zip(*map(on_grid, sets), strict=True)
            scale = per_model([float(grid.scale) for grid in grids], self.device)
            inputs = [Reader(e, o, len(sets)) for e, o in zip(sets, orders, strict=True)]
            terms = []
            for step, rows in enumerate(batches(n, self.settings.batch_size), start=1):
                own = self.workers.own(rows)
                x = exact.Fixed(_joined([r[own] for r in inputs]), scale, grids[0].bits)
                terms.append((own, self.step(x, _joined([t[own] for t in targets]), rows, epoch)))
                if after_step:
                    after_step(step)
            return self._averaged(terms, n)

    @torch.inference_mode()  # what autograd keeps track of costs a sixth of a step
    def step(self, x: exact.Fixed, targets: Tensor, rows: slice, epoch: int) -> Tensor:
        """One step on one batch, `rows` of the epoch's order; gives the terms of its loss.

        `x`, `targets` and the terms are of this worker's own rows.
        """
        gradients, terms = self._gradients(x, targets, rows, epoch)
        self.optimizer.step(gradients)
        return terms

    def evaluate(self, examples: Sequence[Examples]) -> list[Metrics]:
        """Loss and accuracy of every model without dropout, nothing learnt."""
        sets = _distinct(examples)
        n, inputs, terms = len(sets[0]), [Reader(e, None, len(sets)) for e in sets], []
        size = max(EVAL_ROWS // len(self.models), min(self.settings.batch_size, EVAL_ROWS))
        own = self.workers.own(slice(0, n))
        shares = batches(own.stop - own.start, size) or [slice(0, 0)]  # no rows are a piece too
        pieces = [slice(own.start + rows.start, own.start + rows.stop) for rows in shares]
        with arithmetic(self.device):
            joined = (_joined([x[rows] for x in inputs]) for rows in pieces)
            for rows, outputs in zip(pieces, _forward(self.w, self.b, joined), strict=True):
                targets = _joined([e.targets[rows] for e in sets])
                terms.append((rows, self.loss(outputs, targets)[1]))
            return self._averaged(terms, n)

    def gradients(self, examples: Examples) -> Weights:
        """Gradients of the one model's mean loss, without dropout: float32, on the CPU."""
        rows = slice(0, len(examples))
        own = self.workers.own(rows)
        with arithmetic(self.device):
            examples, grid = on_grid(examples)
            x = exact.Fixed(Reader(examples)[own], grid.scale, grid.bits)
            gradients, _ = self._gradients(x, examples.targets[own], rows)
        return {name: g.cpu() for name, g in zip(self.parameters, gradients, strict=True)}

    def weights(self) -> list[Weights]:
        """The present weights of every model: float32, on the CPU."""
        of_all = {}
        for name, tensor in self.parameters.items():
            shape = tensor.shape[-1:] if name.endswith("bias") else tensor.shape[-2:]
            of_all[name] = tensor.cpu().view(len(self.models), *shape)
        rows = torch.contiguous_format
        return [
            {name: tensor[i].clone(memory_format=rows) for name, tensor in of_all.items()}
            for i in range(len(self.models))
        ]

    def optimizer_state(self) -> Mapping[str, Tensor]:
        """What the optimizer remembers of its steps: its own tensors, not copies."""
        return self.optimizer.state

    def load_optimizer_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `optimizer_state` gave."""
        for name, tensor in state.items():
            self.optimizer.state[name].copy_(tensor)

    def _averaged(self, terms: Sequence[tuple[slice, Tensor]], n: int) -> list[Metrics]:
        """Metrics of every model, from the terms of the loss of all `n` rows."""
        gathered = self.workers.gather(terms, n)
        return [self.metrics(of_model) for of_model in gathered.view(-1, *gathered.shape[-2:])]

    def _gradients(
        self, x: exact.Fixed, targets: Tensor, rows: slice, epoch: int = 0
    ) -> tuple[list[Tensor], Tensor]:
        """Gradients of a batch's mean loss, and the terms of its rows' losses.

        A weight's and a bias's in turn, layer by layer. In epoch 0 nothing is dropped.
        """
        bits, n = _bits(x.integers), rows.stop - rows.start
        share = 1 / n
        # In a product a factor is free: pixels to [0, 1], and up what dropout has spared.
        scale: list[float | Tensor] = [PIXEL_SCALE if x.is_pixels else 1.0]
        scale += self.scales if epoch else [1.0] * len(self.scales)
        inputs = [x]  # of every layer
        weights = [exact.quantise(w, bits) for w in self.w]
        activations = []  # of every hidden layer: where they are 0, no gradient passes
        for layer, (w, b) in enumerate(zip(weights[:-1], self.b, strict=False)):
            hidden = exact.product(inputs[layer], w, scale[layer], torch.float32)
            hidden.add_(b).clamp_(min=0.0)
            if epoch and any(s.dropout[layer] for s in self.models):
                hidden.mul_(self._mask(self.workers.own(rows), epoch, layer))
            activations.append(hidden)
            inputs.append(exact.quantise(hidden, bits, self.workers.magnitude(hidden)))
        outputs = exact.product(inputs[-1], weights[-1], scale[-1]).add_(self.b[-1])
        error, terms = self.loss(outputs, targets)
        sums: list[exact.Sums] = []  # over the rows, of weights and biases in turn
        for layer in reversed(range(len(weights))):
            grid = exact.quantise(error, bits, self.workers.magnitude(error))
            of_weight = exact.product_sums(inputs[layer].mT, grid, n)
            sums = [of_weight, exact.total_sums(grid, -2, n), *sums]
            if layer:
                error = exact.product(grid, weights[layer].mT, scale[layer], torch.float32)
                error = torch.ops.aten.threshold_backward(error, activations[layer - 1], 0.0)
        self.workers.add(sums)
        gradients: list[Tensor] = []
        for layer, b in enumerate(self.b):
            of_weight, of_bias = sums[2 * layer : 2 * layer + 2]
            gradients.append(of_weight.rounded(share * scale[layer], torch.float32))
            gradients.append(of_bias.rounded(share).to(torch.float32).view_as(b))
        return gradients, terms

    def _mask(self, rows: slice, epoch: int, layer: int) -> Tensor:
        """Dropout mask of a hidden layer: [n, units], or [models, n, units] where they differ."""
        drawn = {(s.seed, s.dropout[layer]): s for s in self.models}
        masks = {key: mask(s, rows, epoch, layer, self.device) for key, s in drawn.items()}
        of_models = [masks[s.seed, s.dropout[layer]] for s in self.models]
        return torch.stack(of_models) if len(masks) > 1 else of_models[0]


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor as it is; several stacked, as matrices.

    In memory every unit's weights, of all its inputs, lie in a row: so do the results of wide
    products, and a number of every model meets long rows.
    """
    return torch.stack([torch.atleast_2d(x).mT for x in tensors]).mT if tensors[1:] else tensors[0]


def _joined(tensors: list[Tensor]) -> Tensor:
    """One tensor as it is; several stacked."""
    return torch.stack(tensors) if tensors[1:] else tensors[0]


def _distinct(examples: Sequence[Examples]) -> Sequence[Examples]:
    """The one set of examples that all models share, or that of each."""
    return examples[:1] if len({id(e) for e in examples}) == 1 else examples


@contextmanager
def arithmetic(device: torch.device) -> Iterator[None]:
    """Context of everything that is computed portably: nothing flushes small numbers to zero.

    `UserError` if a thread does, at the start or at the end, or float64 products are not exact.
    """
    try:
        require_exact_float64(device)
    except InexactError as error:
        raise UserError(str(error)) from error
    torch.set_flush_denormal(False)
    _require_subnormals(device)
    yield
    _require_subnormals(device)


def _require_subnormals(device: torch.device) -> None:
    """Refuse to go on where a library makes this process flush small numbers to zero."""
    numbers = GRAIN * torch.get_num_threads()
    tiny = torch.finfo(torch.float32).tiny
    smallest = torch.full((numbers,), tiny, dtype=torch.float32, device=device)
    if float(smallest.mul_(0.5).amin()) == 0:
        raise UserError(
            "this process flushes subnormal numbers to zero, so its results would not be "
            "portable: find the library that switches this on (built with fast-math), or use "
            "numerics: native"
        )


def _bits(x: Tensor) -> int:
    """Bits of all numbers in products with these inputs, pixels aside."""
    return PIXEL_BITS if x.dtype == torch.uint8 else FEATURE_BITS


def on_grid(examples: Examples) -> tuple[Examples, exact.Fixed]:
    """Examples with whole numbers as inputs, on the one grid of them all: pixels as they are."""
    if examples.inputs.dtype == torch.uint8:
        return examples, exact.pixels(examples.inputs)
    grid = exact.quantise(Reader(examples)[0 : len(examples)], FEATURE_BITS)
    whole = grid.integers.to(torch.float64)
    return Examples(inputs=whole, targets=examples.targets), grid


def _forward(
    weights: list[Tensor], biases: list[Tensor], pieces: Iterable[Tensor]
) -> Iterator[Tensor]:
    """Outputs of pieces of the inputs, without dropout: float64 [..., n, outputs]."""
    grids: list[exact.Fixed] = []
    for x in pieces:
        bits = _bits(x)
        grids = grids or [exact.quantise(w, bits) for w in weights]
        if x.dtype == torch.uint8:
            inputs, factor = exact.pixels(x), PIXEL_SCALE
        else:
            inputs, factor = exact.quantise(x, bits, exact.magnitude(x, by_row=True)), 1.0
        for w, b in zip(grids[:-1], biases, strict=False):
            hidden = exact.product(inputs, w, factor, torch.float32).add_(b).clamp_(min=0.0)
            inputs = exact.quantise(hidden, bits, exact.magnitude(hidden, by_row=True))
            factor = 1.0
        yield exact.product(inputs, grids[-1], factor).add_(biases[-1])


def outputs(weights: Weights, inputs: Tensor) -> Tensor:
    """Outputs of a trained model without dropout, on the device of `inputs`.

    From pixels, uint8 [n, inputs], or features, float32, to float64 [n, outputs]; a classifier's
    are its logits.
    """
    layers = range(len(weights) // 2)
    w = [weights[f"layers.{i}.weight"].to(inputs.device) for i in layers]
    b = [weights[f"layers.{i}.bias"].to(inputs.device) for i in layers]
    with arithmetic(inputs.device):
        return torch.cat(list(_forward(w, b, inputs.split(EVAL_ROWS))))
