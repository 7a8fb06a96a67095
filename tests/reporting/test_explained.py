"""What the explanation says of softmax and of a model, against scipy."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import figures
from refashion.portable import functions
from refashion.reporting import explained
from refashion.reporting.explained import Explanation
from refashion.reporting.tables import rows_of

CLASSES = ("sock", "hat", "tie", "scarf")


def answers(n: int = 200, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits that never put the last class first, and labels that they are often right about."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), n)
    logits = rng.normal(0, scale, (n, len(CLASSES)))
    logits[np.arange(n), labels] += scale
    logits[:, -1] -= 12
    return torch.tensor(logits), torch.tensor(labels)


@pytest.fixture(scope="module")
def explanation() -> Explanation:
    return Explanation(variant="mlp", classes=explained.by_class(*answers(), CLASSES))


# --- the loss ---------------------------------------------------------------------------------


def test_small_logits_need_no_care() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (100, 4))
    losses = explained.naive(torch.tensor(logits)).numpy()
    assert losses == pytest.approx(-log_softmax(logits, 1)[:, 0], rel=1e-9, abs=1e-11)


def test_the_gradient_is_softmax_less_truth() -> None:
    assert 0 <= explained.gradient_error() < 1e-9


# --- what a model tells -----------------------------------------------------------------------


def test_information_by_class(explanation: Explanation) -> None:
    classes = explanation.classes
    logits, labels = (tensor.numpy() for tensor in answers())
    predicted = logits.argmax(1)
    assert [c.name for c in classes] == list(CLASSES[:3])  # nothing is taken for a scarf
    for i, c in enumerate(classes):
        probabilities, truth = softmax(logits[predicted == i], 1), labels[predicted == i]
        p, q = np.bincount(truth, minlength=4) / len(truth), probabilities.mean(0)
        assert c.images == len(truth)
        assert c.entropy == pytest.approx(entropy(p), rel=1e-9)
        assert c.divergence == pytest.approx(entropy(p, q), rel=1e-6)
        assert c.cross_entropy == pytest.approx(entropy(p) + entropy(p, q), rel=1e-6)
        assert c.image_entropy == pytest.approx(entropy(probabilities, axis=1).mean(), rel=1e-9)
        assert c.divergence >= 0
    assert sum(c.images for c in classes) == 200


def test_a_sure_model_that_is_right_tells_all() -> None:
    labels = torch.arange(3).repeat(5)
    sure = torch.eye(3, dtype=torch.float64)[labels] * 900
    (first, *_) = explained.by_class(sure, labels, "abc")
    assert (first.images, first.entropy, first.cross_entropy, first.image_entropy) == (5, 0, 0, 0)


def test_sums_do_not_depend_on_their_order_or_the_version_of_python() -> None:
    p = torch.arange(1, 20, dtype=torch.float64) / 190
    q = p.flip(0)
    expected = -float(sum(map(Fraction, (p * functions.log(q)).tolist())))
    assert explained.cross_entropy(p, q) == explained.cross_entropy(q, p) == expected


def test_a_model_that_knows_nothing() -> None:
    """Every image is taken for the first class, with the same probability of each."""
    labels = torch.arange(8) % 4
    (one,) = explained.by_class(torch.zeros(8, 4, dtype=torch.float64), labels, CLASSES)
    for value in (one.entropy, one.cross_entropy, one.image_entropy):
        assert value == pytest.approx(math.log(4))
    assert one.divergence == pytest.approx(0, abs=1e-12)


# --- tables and pictures ----------------------------------------------------------------------


def test_tables(explanation: Explanation) -> None:
    shift, overflow, gradient, information = map(rows_of, explained.tables(explanation))
    assert [row[0] for row in shift[1:3]] == ["1, 2, 3", "101, 102, 103"]
    assert [row[1] for row in shift[1:3]] == ["0.0900, 0.2447, 0.6652"] * 2
    assert [row[1:] for row in overflow[2:]] == [
        *(["nan", "0"], ["inf", "1000"], ["nan", "0.693147"]),
    ]
    assert gradient[1][1] == f"{explained.gradient_error():.1e}"
    for (name, images, *cells), c in zip(information[1:], explanation.classes, strict=True):
        assert (name, images) == (c.name, str(c.images))
        values = (c.entropy, c.cross_entropy, c.divergence, c.image_entropy)
        assert cells == [f"{nats:.4f} ({nats / math.log(2):.4f})" for nats in values]


def test_picture(explanation: Explanation) -> None:
    picture = explained.picture(explanation)
    assert [axes.get_title() for axes in picture.axes][2] == "mlp: images taken for a class"
    assert figures.png(picture).startswith(b"\x89PNG")


def test_a_model_of_the_workspace(main: Workspace) -> None:
    explanation = explained.explain(main, "mlp")
    assert explanation.variant == "mlp"
    assert sum(c.images for c in explanation.classes) == 60
    assert explained.explain(main, "mlp") == explanation
    with pytest.raises(UserError, match=r"variant 'mlq' is not in params\.yaml"):
        explained.explain(main, "mlq")
