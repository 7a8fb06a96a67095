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
WEIGHT_BITS = 22
HIDDEN_BITS = 14
ERROR_BITS = 22  # of the loss's gradient with respect to the logits
HIDDEN_ERROR_BITS = 14
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
        weights = [exact.quantise(w, WEIGHT_BITS) for w in self.w]
        for rows in batches(len(examples), FIT_ROWS):
            z = _forward(examples.images[rows], weights, self.b)
            watch.see(rows, SoftmaxTerms.of(z))
        return watch.fit()

    def weights(self) -> Weights:
        """The present weights."""
        result = {}
        for i, (w, b) in enumerate(zip(self.w, self.b, strict=True)):
            result[f"layers.{i}.weight"] = w.detach().clone().cpu()
            result[f"layers.{i}.bias"] = b.detach().clone().cpu()
        return result

    def _step(
        self, images: Tensor, labels: Tensor, rows: slice, epoch: int, watch: "Watch"
    ) -> None:
        """Forward, backward and update on one batch: the rows `rows` of the epoch's order."""
        n = len(labels)
        inputs = [exact.pixels(images)]  # of every layer, on their grids
        weights = [exact.quantise(w, WEIGHT_BITS) for w in self.w]
        active = []  # which hidden units pass a gradient on
        factor = PIXEL_SCALE
        for layer, (w, b) in enumerate(zip(weights, self.b, strict=True)):
            z = exact.product(inputs[layer], w, factor).add_(b)
            if layer < len(self.settings.hidden):
                hidden, passing, factor = self._activate(z, layer, rows, epoch)
                active.append(passing)
                inputs.append(exact.quantise(hidden, HIDDEN_BITS))
        terms = SoftmaxTerms.of(z)
        watch.see(rows, terms)
        error = terms.probabilities().sub_(self.eye.index_select(0, labels))  # softmax(o) - y
        bits = ERROR_BITS
        for layer in reversed(range(len(weights))):
            grid = exact.quantise(error, bits)
            scale = PIXEL_SCALE if layer == 0 else self._keep_scale(layer - 1)
            gradient = exact.product(inputs[layer].mT, grid, scale / n, torch.float32)
            bias_gradient = exact.total(grid, -2).mul_(1 / n)
            if layer:
                error = exact.product(grid, weights[layer].mT, scale).mul_(active[layer - 1])
                bits = HIDDEN_ERROR_BITS
            self._update(layer, gradient, bias_gradient)

    def _activate(
        self, z: Tensor, layer: int, rows: slice, epoch: int
    ) -> tuple[Tensor, Tensor, float]:
        """ReLU and dropout: the hidden units, 1 where they are above 0, the next layer's factor.

        Units that dropout spares are scaled up not here but in the factor of the products that
        follow, where the scaling costs nothing.
        """
        hidden = z.clamp_(min=0.0)
        if self.settings.dropout[layer]:
            kept = mask(self.settings, rows, epoch, layer, self.device)
            hidden.mul_(kept)
        return hidden, hidden.sign(), self._keep_scale(layer)

    def _keep_scale(self, layer: int) -> float:
        """What dropout after hidden layer `layer` multiplies the spared units by."""
        dropout = self.settings.dropout[layer]
        return 1 / streams.keep_probability(dropout) if dropout else 1.0

    def _update(self, layer: int, weight_gradient: Tensor, bias_gradient: Tensor) -> None:
        """One step of SGD with momentum; weight decay spares the biases."""
        for p, gradient, velocity, decay in (
            (self.w[layer], weight_gradient, self.w_velocity[layer], self.settings.weight_decay),
            (self.b[layer], bias_gradient, self.b_velocity[layer], 0.0),
        ):
            step = gradient.to(torch.float32)
            if decay:
                step.add_(p * decay)
            if self.settings.momentum:
                step = velocity.mul_(self.settings.momentum).add_(step)
            p.sub_(step * self.settings.lr)


class Watch:
    """Collects what the loss and the accuracy over many batches are made of."""

    def __init__(self, labels: Tensor) -> None:
        n = len(labels)
        self.labels = labels
        self.predicted = torch.empty_like(labels)
        self.totals = torch.empty(n, dtype=torch.float64, device=labels.device)
        self.shifted = torch.empty_like(self.totals)

    def see(self, rows: slice, terms: SoftmaxTerms) -> None:
        """Keep what the loss of these rows follows from; the logarithm can wait."""
        self.totals[rows] = terms.totals[:, 0]
        self.shifted[rows] = terms.shifted.gather(1, self.labels[rows, None])[:, 0]
        torch.argmax(terms.shifted, 1, out=self.predicted[rows])

    def fit(self) -> Fit:
        """Mean cross-entropy, -log softmax of the true class, and accuracy."""
        losses = log_total(self.totals) - self.shifted
        correct = int((self.predicted == self.labels).sum())
        return Fit(loss=exact.mean(losses), accuracy=correct / len(self.labels))


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


def _forward(images: Tensor, weights: list[exact.Fixed], biases: list[Tensor]) -> Tensor:
    """Logits without dropout: float64 [n, classes] of images uint8 [n, pixels]."""
    z = exact.product(exact.pixels(images), weights[0], PIXEL_SCALE).add_(biases[0])
    for w, b in zip(weights[1:], biases[1:], strict=True):
        hidden = z.clamp_(min=0.0)
        largest = exact.magnitude(hidden, by_row=True)  # an image's logits depend on it alone
        z = exact.product(exact.quantise(hidden, HIDDEN_BITS, largest), w).add_(b)
    return z


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
    grids = [exact.quantise(x, WEIGHT_BITS) for x in w]
    return torch.cat([_forward(rows, grids, b) for rows in images.split(FIT_ROWS)])
