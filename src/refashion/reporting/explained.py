"""Explanation of softmax and cross-entropy in numbers (book, sections 3.4 to 3.7 and 22.11)."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor
from torch.special import entr, xlogy

from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.pictures.figures import TRAIN, VALIDATION, WRONG, blank, plain
from refashion.portable import softmax, streams
from refashion.reporting.tables import table
from refashion.serving import predict
from refashion.training import portable

NOTES = (
    "How logits become probabilities and a loss, and what the probabilities of a model tell "
    "(book, sections 3.4 to 3.7).",
    "The last table is about the images that the model takes for a class. P is the distribution "
    "of their true classes, Q the model's mean probabilities for them. It has the entropy H(P), "
    "the cross-entropy H(P, Q), the Kullback-Leibler divergence KL(P|Q) = H(P, Q) - H(P) between "
    "the truth and the model, and the mean entropy of the model's probabilities for one image.",
)
NUM_RANDOM = 256


class ClassInformation(NamedTuple):
    """Information measures of the test images that a model takes for one class, in nats."""

    name: str
    images: int
    entropy: float  # of the distribution P of the true classes
    cross_entropy: float  # of P with the model's mean probabilities Q
    divergence: float  # Kullback-Leibler divergence of Q from P
    image_entropy: float  # mean entropy of the model's probabilities for one image


def explain(workspace: Workspace, variant: str | None = None) -> tuple[str, list[ClassInformation]]:
    """Measure a model of the workspace, by default the best one, on the test images.

    Returns its variant, and the classes that it predicts at all, in the order of the labels.
    `UserError` if there is no such variant, or its model or the test images are missing.
    """
    chosen, dataset, weights = predict.trained_here(workspace, variant)
    test = prepared.load(workspace.test)
    logits = portable.outputs(weights, torch.tensor(np.asarray(test.images)))
    labels = torch.tensor(test.labels, dtype=torch.int64)
    return chosen, by_class(logits, labels, DATASETS[dataset].classes)


def by_class(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> list[ClassInformation]:
    """Information measures by predicted class, of logits, float64 [n, k], and labels, int64 [n].

    `classes` are the names of the k classes; those that are never predicted are left out.
    """
    rows, predicted = [], logits.argmax(1)
    for i in predicted.unique().tolist():
        of_class = predicted == i
        images, probabilities = int(of_class.sum()), logits[of_class].softmax(1)
        p = labels[of_class].bincount(minlength=len(classes)).double() / images
        entropy, cross_entropy = float(entr(p).sum()), -float(xlogy(p, probabilities.mean(0)).sum())
        image_entropy = float(entr(probabilities).sum() / images)
        measures = (entropy, cross_entropy, cross_entropy - entropy, image_entropy)
        rows.append(ClassInformation(classes[i], images, *measures))
    return rows


def naive(logits: Tensor) -> Tensor:
    """Cross-entropy of the first class by its definition, without LogSumExp: float64 [n].

    The exponential overflows above 709 and vanishes below -745, so that it is NaN or infinite
    where the stable form is not.
    """
    exponentials = logits.exp()
    return -(exponentials[:, 0] / exponentials.sum(1)).log()


def tables(variant: str, classes: Sequence[ClassInformation]) -> Iterator[Table]:
    """Tables of softmax, of its cross-entropy and gradient, and of what `explain` gives."""
    title = "What softmax does: positive, sums to 1, keeps the order, ignores a common shift"
    logits = [[1, 2, 3], [101, 102, 103], [10, 20, 30], [0.1, 0.2, 0.3]]
    o = torch.tensor(logits, dtype=torch.float64)
    columns = [_lists(o, "g"), _lists(softmax.softmax(o), ".4f")]
    yield table(title, ("logits", "softmax"), zip(*columns, strict=True))
    title = "What LogSumExp avoids: cross-entropy of the first class, in nats"
    o = torch.tensor([[10, 0], [1000, 0], [0, 1000], [-1000, -1000]], dtype=torch.float64)
    loss, _ = softmax.cross_entropy(o, torch.zeros(4, dtype=torch.int64), reduction="none")
    columns = [_lists(o, "g"), _lists(naive(o)[:, None], ".6g"), _lists(loss[:, None], ".6g")]
    yield table(title, ("logits", "log of the softmax", "LogSumExp"), zip(*columns, strict=True))
    title = "The gradient of the cross-entropy is softmax(o) - y"
    what = f"largest difference from autograd, {NUM_RANDOM} random examples"
    yield table(title, ("what", "value"), [(what, f"{_gradient_error():.1e}")])
    title = f"{variant}: the images that it takes for each class, in nats (bits)"
    header = ("taken for", "images", "H(P)", "H(P, Q)", "KL(P|Q)", "entropy of one image")
    rows = (
        [name, f"{images:,}", *(f"{nats:.4f} ({nats / math.log(2):.4f})" for nats in measures)]
        for name, images, *measures in classes
    )
    yield table(title, header, rows)


def picture(variant: str, classes: Sequence[ClassInformation]) -> Figure:
    """Loss and gradient by the logit of the true class, and what `explain` gives."""
    figure = blank(12.0, 4.2, "softmax and cross-entropy")
    losses, gradients, bars = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    o = torch.linspace(-1000, 1000, 401, dtype=torch.float64)
    logits, loss, _ = _two_classes(o)
    losses.plot(o, loss, color=TRAIN, label="LogSumExp")
    losses.plot(o, naive(logits), color=VALIDATION, lw=3, ls=":", label="log of the softmax")
    losses.set(title="two classes, logits o and 0", xlabel="o, of the true class")
    losses.set_ylabel("loss / nats")
    o = torch.linspace(-8, 8, 161, dtype=torch.float64)
    _, loss, gradient = _two_classes(o)
    gradients.plot(o, loss, color=TRAIN, label="loss / nats")
    gradients.plot(o, gradient[:, 0], color=WRONG, label="gradient, softmax(o) - y")
    gradients.set(title="loss and gradient", xlabel="o, of the true class")
    names, _, entropies, _, divergences, image_entropies = zip(*classes, strict=True)
    bars.barh(names, entropies, color=TRAIN, label="entropy H(P)")
    bars.barh(names, divergences, left=entropies, color=WRONG, label="KL(P|Q)")
    bars.plot(image_entropies, names, "k|", ms=9, label="entropy of one image")
    bars.invert_yaxis()
    bars.set(title=f"{variant}: images taken for a class", xlabel="nats")
    plain(losses, gradients, bars)
    return figure


def _gradient_error() -> float:
    """Largest difference of ``softmax(o) - y`` from autograd's gradient, on random examples."""
    numbers = streams.normal((NUM_RANDOM, 11), streams.key(0, streams.Purpose.EXAMPLES, 2))
    logits = (numbers[:, :10] * 10).requires_grad_()
    labels = (numbers[:, 10] * 100).to(torch.int64).remainder(10)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    by_hand = softmax.softmax(logits.detach()) - torch.eye(10, dtype=torch.float64)[labels]
    return float((by_hand - torch.autograd.grad(loss, logits)[0]).abs().max())


def _two_classes(o: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits o and 0, and the loss and its gradient where the first class is true."""
    logits = torch.stack([o, torch.zeros_like(o)], 1)
    labels = torch.zeros(len(o), dtype=torch.int64)
    return logits, *softmax.cross_entropy(logits, labels, reduction="none")


def _lists(rows: Tensor, form: str) -> list[str]:
    return [", ".join(f"{value:{form}}" for value in row) for row in rows.tolist()]
