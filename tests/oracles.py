"""Models in float64, written as the book writes them, and what tests compare trainings by."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from matrices import random_pixels
from refashion.portable import streams
from refashion.training import loop
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Model, Training
from refashion.training.settings import Settings

LINEAR = Settings(lr=0.05, epochs=3, batch_size=5, num_inputs=7, num_outputs=1, loss="squared")
HIDDEN = replace(LINEAR, hidden=(6, 4), dropout=(), initialisation="he")
SOFTMAX = Settings(lr=0.5, epochs=3, batch_size=5, num_inputs=12, num_outputs=3)
MLP = replace(SOFTMAX, hidden=(70,), dropout=())  # wide enough for limbs by row
N = 23  # the last batch of an epoch has three examples


def train(*models: Model) -> list[Training]:
    """Train models on the processor to their ends."""
    state = loop.State.start(models)
    for _ in loop.train(models, device="cpu", state=state):
        pass
    return state.trainings


def outputs(weights: Weights, inputs: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
    """Outputs, float64 [n, outputs]; masks multiply the hidden layers' units."""
    h = inputs.double() / 255 if inputs.dtype == torch.uint8 else inputs.double()
    last = len(weights) // 2 - 1
    for i in range(last + 1):
        h = h @ weights[f"layers.{i}.weight"].double() + weights[f"layers.{i}.bias"].double()
        if i < last:
            h = torch.relu(h) * masks[i] if masks else torch.relu(h)
    return h


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of classes, or half the mean squared error of numbers."""
    if targets.is_floating_point():
        return functional.mse_loss(outputs, targets) / 2
    return functional.cross_entropy(outputs, targets)


def gradients(weights: Weights, examples: Examples) -> Weights:
    """Gradients of the mean loss, by autograd."""
    parameters = {name: tensor.double().requires_grad_() for name, tensor in weights.items()}
    mean = loss(outputs(parameters, examples.inputs), examples.targets)
    tensors = torch.autograd.grad(mean, list(parameters.values()))
    return dict(zip(parameters, tensors, strict=True))


def distance(a: Weights, b: Weights) -> float:
    """Between two sets of weights, relative to the norm of the second."""
    x, y = (torch.cat([w[name].flatten().double() for name in sorted(w)]) for w in (a, b))
    return float((x - y).norm() / y.norm())


def numbers(settings: Settings, n: int, seed: int = 0, size: float = 1.0) -> Examples:
    """Features with targets that follow from them, and some noise; each seed has its own."""
    keys = [streams.key(seed, streams.Purpose.SELFTEST, i) for i in range(2)]
    inputs = (streams.normal((n, settings.num_inputs), keys[0]) * size).to(torch.float32)
    noise = streams.normal((n, settings.num_outputs), keys[1])
    first, last = inputs[:, : settings.num_outputs].double(), inputs[:, -1:].double()
    return Examples(inputs=inputs, targets=first * 2 - last + 1 + noise * 0.1)


def examples(settings: Settings, n: int, seed: int = 0, size: float = 1.0) -> Examples:
    """Pixels with classes, or numbers with a target."""
    if settings.loss == "squared":
        return numbers(settings, n, seed, size)
    pixels = random_pixels(n, settings.num_inputs, seed=seed)
    return Examples(inputs=pixels, targets=pixels[:, 0].long() % settings.num_outputs)


def model(
    settings: Settings, data: int = 0, size: float = 1.0, n: int = N, watched: int = 9
) -> Model:
    """A model with examples that are its own, of its own size."""
    validation = examples(settings, watched, data + 1000, size)
    return Model(settings=settings, train=examples(settings, n, data, size), validation=validation)
