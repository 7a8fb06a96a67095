"""Softmax and cross-entropy, explained in numbers (book, sections 3.4 to 3.7 and 22.11)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from refashion.base import paths
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.portable import exact, functions, softmax, streams
from refashion.serving import predict
from refashion.tracking.figures import TRAIN, VALIDATION, WRONG, blank, plain
from refashion.training import portable

NUM_RANDOM = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassInformation:
    """What a model tells about the test images that it takes for one class, in nats."""

    name: str
    images: int
    entropy: float
    """Of what these images are."""
    cross_entropy: float
    """Of that with the model's mean probabilities for them."""
    doubt: float
    """Mean entropy of the model's probabilities for one image."""

    @property
    def divergence(self) -> float:
        """Kullback-Leibler divergence: what the model's mean probabilities are away from truth."""
        return self.cross_entropy - self.entropy


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """All numbers of the explanation."""

    variant: str
    """The model whose answers are looked at."""
    dataset: str
    gradient_error: float
    """Largest difference of ``softmax(o) - y`` from what autograd finds."""
    classes: list[ClassInformation]


def explain(variant: str | None) -> Explained:
    """Look at the test images through a model of the workspace; by default the best one.

    Raises
    ------
    UserError
        If there is no such variant, or its model or the test images are missing.
    """
    chosen, dataset, weights = predict.trained_here(variant)
    test = prepared.load(paths.TEST)
    logits = portable.outputs(weights, torch.tensor(np.asarray(test.images)))
    labels = torch.tensor(test.labels, dtype=torch.int64)
    return Explained(
        variant=chosen,
        dataset=dataset,
        gradient_error=_gradient_error(),
        classes=_by_class(logits, labels, DATASETS[dataset].classes),
    )


def _gradient_error() -> float:
    """Of random logits and classes."""
    numbers = streams.normal((NUM_RANDOM, 11), streams.key(0, streams.Purpose.EXAMPLES, 2))
    logits = (numbers[:, :10] * 10).requires_grad_()
    labels = (numbers[:, 10] * 100).to(torch.int64).remainder(10)
    torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
    assert logits.grad is not None
    by_hand = softmax.softmax(logits.detach()) - torch.eye(10, dtype=torch.float64)[labels]
    return float((by_hand - logits.grad).abs().max())


def _by_class(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> list[ClassInformation]:
    logarithms = softmax.log_softmax(logits)
    probabilities = functions.exp(logarithms)  # not 0 where the softmax itself is
    predicted = logits.argmax(1)
    found = []
    for i, name in enumerate(classes):
        chosen = predicted == i
        n = int(chosen.sum())
        if not n:
            continue
        own = probabilities[chosen]
        truth = torch.bincount(labels[chosen], minlength=len(classes)).to(torch.float64) / float(n)
        mean = torch.tensor([exact.mean(column) for column in own.mT], dtype=torch.float64)
        doubt = [exact.mean(column) for column in (own * logarithms[chosen]).mT]
        found.append(
            ClassInformation(
                name=name,
                images=n,
                entropy=_information(truth, truth),
                cross_entropy=_information(truth, mean),
                doubt=0.0 - math.fsum(doubt),
            )
        )
    return found


def _information(p: Tensor, q: Tensor) -> float:
    """``- sum p log q`` in nats; what never happens adds nothing."""
    happens = p > 0
    return 0.0 - math.fsum((p[happens] * functions.log(q[happens])).tolist())


def tables(found: Explained) -> Iterator[Table]:
    """Lay the explanation out."""
    yield _softmax_table()
    yield _overflow_table()
    table = Table("what", "value", title="The gradient of the cross-entropy is softmax(o) - y")
    table.add_row(
        f"largest difference from autograd, {NUM_RANDOM} random examples",
        f"{found.gradient_error:.1e}",
    )
    yield table
    title = f"{found.variant}: the images that it takes for each class, in nats (bits)"
    table = Table("taken for", "images", "H(P)", "H(P, Q)", "KL(P|Q)", "one image", title=title)
    for c in found.classes:
        values = (c.entropy, c.cross_entropy, c.divergence, c.doubt)
        table.add_row(c.name, f"{c.images:,}", *map(_nats_and_bits, values))
    yield table


NOTES = (
    "How logits become probabilities and a loss, and what the probabilities of a model tell "
    "(book, sections 3.4 to 3.7).",
    "Of the images that the model takes for a class: entropy H(P) of what they are; cross-entropy "
    "H(P, Q) of that with the model's mean probabilities Q for them; the Kullback-Leibler "
    "divergence KL(P|Q) = H(P, Q) - H(P), by which the model is wrong about itself; and the mean "
    "entropy of its probabilities for one image.",
)
"""What the numbers mean."""


def _nats_and_bits(nats: float) -> str:
    return f"{nats:.4f} ({nats / functions.LN2:.4f})"


def _softmax_table() -> Table:
    title = "What softmax does: positive, sums to 1, keeps the order, forgets a common shift"
    table = Table("logits", "softmax", title=title)
    for logits in ([1.0, 2.0, 3.0], [101.0, 102.0, 103.0], [10.0, 20.0, 30.0], [0.1, 0.2, 0.3]):
        values = softmax.softmax(torch.tensor([logits], dtype=torch.float64))[0].tolist()
        table.add_row(_list(logits, "g"), _list(values, ".4f"))
    return table


def _overflow_table() -> Table:
    title = "What LogSumExp avoids: cross-entropy of the first class, in nats"
    table = Table("logits", "log of the softmax", "LogSumExp", title=title)
    for logits in ([10.0, 0.0], [1000.0, 0.0], [0.0, 1000.0], [-1000.0, -1000.0]):
        o = torch.tensor([logits], dtype=torch.float64)
        loss, _ = softmax.cross_entropy(o, torch.tensor([0]))
        table.add_row(_list(logits, "g"), f"{float(naive(o)[0]):.6g}", f"{float(loss):.6g}")
    return table


def naive(logits: Tensor) -> Tensor:
    """Cross-entropy of the first class as the definition has it: float64 [n].

    Exponentials above 709 overflow and those below -745 vanish, so it is NaN or infinite where the
    stable form is not.
    """
    exponentials = functions.exp(logits)
    first = exponentials[:, 0] / exponentials.sum(1)
    return torch.where(first == 0, torch.inf, -functions.log(first))


def _list(values: Sequence[float], form: str) -> str:
    return ", ".join(f"{value:{form}}" for value in values)


def picture(found: Explained) -> Figure:
    """Loss and gradient by the logit of the true class, and what each class's answers tell."""
    drawn = blank(12.0, 4.2, "softmax and cross-entropy")
    losses, gradients, classes = drawn.subplots(1, 3, width_ratios=(1, 1, 1.3))
    o = torch.linspace(-1000, 1000, 401, dtype=torch.float64)
    logits = torch.stack([o, torch.zeros_like(o)], 1)
    stable, _ = softmax.cross_entropy(logits, torch.zeros(401, dtype=torch.int64), reduction="none")
    losses.plot(o, stable, color=TRAIN, label="LogSumExp")
    losses.plot(o, naive(logits), color=VALIDATION, lw=3, ls=":", label="log of the softmax")
    losses.set(
        title="two classes, logits o and 0", xlabel="o, of the true class", ylabel="loss / nats"
    )
    near = torch.linspace(-8, 8, 161, dtype=torch.float64)
    logits = torch.stack([near, torch.zeros_like(near)], 1)
    loss, gradient = softmax.cross_entropy(
        logits, torch.zeros(161, dtype=torch.int64), reduction="none"
    )
    gradients.plot(near, loss, color=TRAIN, label="loss / nats")
    gradients.plot(near, gradient[:, 0], color=WRONG, label="gradient, softmax(o) - y")
    gradients.set(title="loss and gradient", xlabel="o, of the true class")
    rows = range(len(found.classes))
    classes.barh(rows, [c.entropy for c in found.classes], color=TRAIN, label="entropy H(P)")
    classes.barh(
        rows,
        [c.divergence for c in found.classes],
        left=[c.entropy for c in found.classes],
        color=WRONG,
        label="KL(P|Q)",
    )
    classes.plot([c.doubt for c in found.classes], rows, "k|", ms=9, label="entropy of one answer")
    classes.set_yticks(rows, [c.name for c in found.classes])
    classes.invert_yaxis()
    classes.set(title=f"{found.variant}: images taken for a class", xlabel="nats")
    for axes in (losses, gradients, classes):
        plain(axes)
        axes.legend(frameon=False, fontsize=8)
    return drawn
