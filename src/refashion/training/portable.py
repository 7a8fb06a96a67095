"""The from-scratch engine: every gradient by hand, the same bits on every machine.

Softmax regression (book, 3.4-3.6), the multilayer perceptron (4.1-4.2), dropout (4.6) and weight
decay (4.5), on exact products (`refashion.portable.exact`).
"""

import torch
from torch import Tensor

from refashion.errors import UserError
from refashion.portable import exact, streams
from refashion.portable.softmax import SoftmaxTerms, log_total
from refashion.training.engine import AfterStep, Examples, Fit, batches, mask, order
from refashion.training.initial import Weights
from refashion.training.settings import NUM_CLASSES, Settings

CONTRACT = "portable/1"
BITS = 14  # of everything that enters a product, pixels aside: two int8 digits
PIXEL_SCALE = 1 / 255
FIT_ROWS = 2048  # examples of one forward pass without learning


class PortableEngine:
    """See `refashion.training.engine.Engine`."""

    contract = CONTRACT

    def __init__(self, settings: Settings, start: Weights, device: torch.device) -> None:
        _require_subnormals(device)
        self.settings = settings
        self.device = device
        layers = range(len(settings.widths) - 1)
        self.w = [start[f"layers.{i}.weight"].to(device, copy=True) for i in layers]
        self.b = [start[f"layers.{i}.bias"].to(device, copy=True) for i in layers]
        if settings.momentum:
            self.w_velocity = [torch.zeros_like(w) for w in self.w]
            self.b_velocity = [torch.zeros_like(b) for b in self.b]
        self.eye = torch.eye(NUM_CLASSES, dtype=torch.float64, device=device)

    def train_epoch(
        self, examples: Examples, epoch: int, after_step: AfterStep | None = None
    ) -> Fit:
        """One pass of minibatch SGD."""
        n = len(examples)
        indices = order(self.settings, n, epoch, self.device)
        labels = examples.labels.index_select(0, indices)
        watch = Watch(labels)
        for step, rows in enumerate(batches(n, self.settings.batch_size), start=1):
            images = examples.images.index_select(0, indices[rows])
            self._step(images, labels[rows], rows, epoch, watch)
            if after_step:
                after_step(step)
        return watch.fit()

    def fit(self, examples: Examples) -> Fit:
        """Loss and accuracy without dropout."""
        watch = Watch(examples.labels)
        weights = _grids(self.w)
        for rows in batches(len(examples), FIT_ROWS):
            z = _forward(examples.images[rows], weights, self.b)
            watch.see(rows, SoftmaxTerms.of(z))
        return watch.fit()

    def weights(self) -> Weights:
        """The present weights."""
        result = {}
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            result[f"layers.{i}.weight"] = w.clone().cpu()
            result[f"layers.{i}.bias"] = b.clone().cpu()
        return result

    def _step(
        self, images: Tensor, labels: Tensor, rows: slice, epoch: int, watch: "Watch"
    ) -> None:
        """Forward, backward and update on one batch: the rows `rows` of the epoch's order."""
        inputs = [exact.pixels(images)]  # of every layer, on their grids
        weights = _grids(self.w)
        active = []  # 1 for every hidden unit that passes a gradient on, else 0
        for layer, (w, b) in enumerate(zip(weights[:-1], self.b, strict=False)):
            factor = self._input_scale(layer)
            hidden = exact.product(inputs[layer], w, factor, torch.float32).add_(b).clamp_(min=0.0)
            if self.settings.dropout[layer]:
                hidden.mul_(mask(self.settings, rows, epoch, layer, self.device))
            active.append(hidden.sign())
            inputs.append(exact.quantise(hidden, BITS))
        last = len(weights) - 1
        z = exact.product(inputs[last], weights[last], self._input_scale(last)).add_(self.b[last])
        terms = SoftmaxTerms.of(z)
        watch.see(rows, terms)
        error = terms.probabilities().sub_(self.eye.index_select(0, labels))  # softmax(o) - y
        rate = self.settings.lr / len(labels)
        for layer in range(last, -1, -1):
            grid = exact.quantise(error, BITS)
            factor = self._input_scale(layer)
            step = exact.product(inputs[layer].mT, grid, rate * factor, torch.float32)
            bias_step = exact.total(grid, -2).mul_(rate).to(torch.float32)
            if layer:
                error = exact.product(grid, weights[layer].mT, factor, torch.float32)
                error.mul_(active[layer - 1])
            self._update(layer, step, bias_step)

    def _input_scale(self, layer: int) -> float:
        """What the inputs of a layer are still to be multiplied by, where it costs nothing.

        Pixels become numbers from 0 to 1; units that dropout has spared are scaled up.
        """
        if layer == 0:
            return PIXEL_SCALE
        dropout = self.settings.dropout[layer - 1]
        return 1 / streams.keep_probability(dropout) if dropout else 1.0

    def _update(self, layer: int, step: Tensor, bias_step: Tensor) -> None:
        """One step of SGD with momentum; weight decay spares the biases.

        The steps come as the learning rate times the gradients.
        """
        w, b = self.w[layer], self.b[layer]
        if self.settings.weight_decay:
            step.add_(w * (self.settings.lr * self.settings.weight_decay))
        if self.settings.momentum:
            step = self.w_velocity[layer].mul_(self.settings.momentum).add_(step)
            bias_step = self.b_velocity[layer].mul_(self.settings.momentum).add_(bias_step)
        w.sub_(step)
        b.sub_(bias_step)


class Watch:
    """Collects what the loss and the accuracy over many batches are made of."""

    def __init__(self, labels: Tensor) -> None:
        shape, device = (len(labels), NUM_CLASSES), labels.device
        self.labels = labels
        self.shifted = torch.empty(shape, dtype=torch.float64, device=device)
        self.totals = torch.empty(shape[0], 1, dtype=torch.float64, device=device)

    def see(self, rows: slice, terms: SoftmaxTerms) -> None:
        """Keep what the loss of these rows follows from; the logarithm can wait."""
        self.shifted[rows] = terms.shifted
        self.totals[rows] = terms.totals

    def fit(self) -> Fit:
        """Mean cross-entropy, -log softmax of the true class, and accuracy."""
        losses = log_total(self.totals) - self.shifted.gather(1, self.labels[:, None])
        correct = int((self.shifted.argmax(1) == self.labels).sum())
        return Fit(loss=exact.mean(losses[:, 0]), accuracy=correct / len(self.labels))


def _require_subnormals(device: torch.device) -> None:
    """Refuse to work where some library made the process flush small numbers to zero."""
    torch.set_flush_denormal(False)
    smallest = torch.full((2**18,), torch.finfo(torch.float32).tiny, device=device)
    if (smallest * 0.5 == 0).any():
        raise UserError(
            "this process flushes subnormal numbers to zero, so its results would not be "
            "portable: find the library that switches this on (built with fast-math), or use "
            "numerics: native"
        )


def _grids(weights: list[Tensor]) -> list[exact.Fixed]:
    """Every layer's weights, rounded to their grids."""
    return [exact.quantise(w, BITS) for w in weights]


def _forward(images: Tensor, weights: list[exact.Fixed], biases: list[Tensor]) -> Tensor:
    """Logits without dropout: float64 [n, classes] of images uint8 [n, pixels]."""
    inputs, factor = exact.pixels(images), PIXEL_SCALE
    for w, b in zip(weights[:-1], biases, strict=False):
        hidden = exact.product(inputs, w, factor, torch.float32).add_(b).clamp_(min=0.0)
        largest = exact.magnitude(hidden, by_row=True)  # an image's logits depend on it alone
        inputs, factor = exact.quantise(hidden, BITS, largest), 1.0
    return exact.product(inputs, weights[-1], factor).add_(biases[-1])


def logits(weights: Weights, images: Tensor) -> Tensor:
    """Logits of a trained model, on the device of `images`; dropout plays no part.

    Parameters
    ----------
    weights
        float32, as a training leaves them.
    images
        uint8 [n, 784].

    Returns
    -------
    Tensor
        float64 [n, 10].
    """
    layers = range(len(weights) // 2)
    w = [weights[f"layers.{i}.weight"].to(images.device) for i in layers]
    b = [weights[f"layers.{i}.bias"].to(images.device) for i in layers]
    grids = _grids(w)
    return torch.cat([_forward(rows, grids, b) for rows in images.split(FIT_ROWS)])
