"""Metrics of one model on a test set, the same to the last bit on every machine.

Images are counted in integers, exponentials and logarithms are the portable ones, sums are exact,
and everything else is one correctly rounded operation at a time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from refashion.base.errors import UserError
from refashion.portable import functions, softmax

NUM_BINS = 15


class Bin(NamedTuple):
    """The test images whose confidence lies in one interval: a row of ``calibration.csv``."""

    low: float
    high: float
    """Confidences are above ``low``, and at most this."""

    images: int
    """At least 1."""

    confidence: float
    """Mean over the images."""

    accuracy: float


class ClassScores(NamedTuple):
    """Scores of one class, 0 where they are undefined: a row of ``per_class.csv``."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Images of this class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Results of a model on a test set of n images and k classes."""

    metrics: dict[str, float]
    """By name, as `evaluate` lists them."""

    per_class: tuple[ClassScores, ...]
    """In the order of the labels."""

    predicted: Tensor
    """Most probable class of every image, int64 [n]; of equals, the lower index."""

    confidence: Tensor
    """Probability of the predicted class, float64 [n]."""

    calibration: tuple[Bin, ...]
    """Bins of confidence that hold images, in rising order."""


def evaluate(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Evaluation:
    """Measure a model's outputs against the true classes.

    The metrics are ``test_accuracy``; ``test_top2_accuracy``; ``test_macro_f1``, the mean F1 of the
    classes; ``test_images``; ``test_cross_entropy_*`` and ``test_prediction_entropy_*``, means over
    the images in ``nats`` and ``bits``; ``test_expected_calibration_error`` over 15 equal bins of
    confidence (Guo et al. 2017, arXiv 1706.04599).

    Parameters
    ----------
    logits
        Outputs of the model, float64 [n, k], on any device, n >= 1.
    labels
        True classes, int64 [n].
    classes
        Names of the k classes.

    Raises
    ------
    UserError
        If a logit is not finite.
    """
    # [n, k] is small: measuring on the CPU spares every trap of a device's own kernels.
    logits, labels = logits.cpu(), labels.cpu()
    n, k = logits.shape
    assert n >= 1 and k == len(classes) and labels.shape == (n,)
    assert logits.dtype == torch.float64 and labels.dtype == torch.int64
    if not logits.isfinite().all():
        raise UserError("the model: its outputs are not finite, training diverged; lower lr")

    probabilities, log_probabilities = softmax.softmax(logits), softmax.log_softmax(logits)
    predicted = logits.argmax(dim=1)
    confidence = probabilities.gather(1, predicted[:, None])[:, 0]
    correct = predicted == labels
    confusion = torch.bincount(labels * k + predicted, minlength=k * k).reshape(k, k)
    calibration = _calibration(confidence, correct)
    # Of equal logits, the lower class is ranked first.
    actual, classes_below = logits.gather(1, labels[:, None]), torch.arange(k) < labels[:, None]
    rank = ((logits > actual) | ((logits == actual) & classes_below)).sum(dim=1)

    # The standard library's mean is of an exact sum, rounded once: the order does not matter.
    cross_entropy = fmean((-log_probabilities.gather(1, labels[:, None])[:, 0]).tolist())
    entropy = math.fsum((-probabilities * log_probabilities).flatten().tolist()) / n
    gaps = (b.images * abs(b.accuracy - b.confidence) for b in calibration)
    per_class, macro_f1 = _per_class(confusion.tolist(), classes)
    metrics = {
        "test_accuracy": int(correct.sum()) / n,
        "test_top2_accuracy": int((rank < 2).sum()) / n,
        "test_macro_f1": macro_f1,
        "test_cross_entropy_nats": cross_entropy,
        "test_cross_entropy_bits": cross_entropy / functions.LN2,
        "test_prediction_entropy_nats": entropy,
        "test_prediction_entropy_bits": entropy / functions.LN2,
        "test_expected_calibration_error": math.fsum(gaps) / n,
        "test_images": n,
    }
    return Evaluation(
        metrics=metrics,
        per_class=per_class,
        predicted=predicted,
        confidence=confidence,
        calibration=calibration,
    )


def _calibration(confidence: Tensor, correct: Tensor) -> tuple[Bin, ...]:
    """Sort the images into equal bins of confidence, each open below and closed above."""
    edges = [i / NUM_BINS for i in range(NUM_BINS + 1)]
    position = torch.bucketize(confidence, torch.tensor(edges[1:-1], dtype=torch.float64))
    bins = []
    for i in position.unique().tolist():
        inside = position == i
        images = int(inside.sum())
        accuracy = int((inside & correct).sum()) / images
        mean = fmean(confidence[inside].tolist())
        bins.append(Bin(edges[i], edges[i + 1], images, mean, accuracy))
    return tuple(bins)


def _per_class(
    confusion: list[list[int]], classes: Sequence[str]
) -> tuple[tuple[ClassScores, ...], float]:
    """Scores of every class, and the mean of the exact F1s."""
    scores, f1s = [], []
    for i, name in enumerate(classes):
        hits, support, predicted = confusion[i][i], sum(confusion[i]), sum(r[i] for r in confusion)
        f1s.append(Fraction(2 * hits, support + predicted or 1))
        precision, recall = hits / (predicted or 1), hits / (support or 1)
        scores.append(ClassScores(name, precision, recall, float(f1s[-1]), support))
    return tuple(scores), float(sum(f1s, Fraction(0)) / len(classes))
