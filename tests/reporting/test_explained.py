"""What the explanation says of softmax and of a model, against scipy."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import figures
from refashion.reporting import explained
from refashion.reporting.explained import ClassInformation
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
def classes() -> list[ClassInformation]:
    return explained.by_class(*answers(), CLASSES)


def test_small_logits_need_no_care() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (100, 4))
    losses = explained.naive(torch.tensor(logits)).numpy()
    assert losses == pytest.approx(-log_softmax(logits, 1)[:, 0], rel=1e-9, abs=1e-11)


def test_information_by_class(classes: list[ClassInformation]) -> None:
    logits, labels = (tensor.numpy() for tensor in answers())
    predicted = logits.argmax(1)
    assert [c.name for c in classes] == list(CLASSES[:3])  # nothing is taken for a scarf
    assert sum(c.images for c in classes) == 200
    for i, c in enumerate(classes):
        probabilities, truth = softmax(logits[predicted == i], 1), labels[predicted == i]
        p, q = np.bincount(truth, minlength=4) / len(truth), probabilities.mean(0)
        assert c.images == len(truth)
        assert c.entropy == pytest.approx(entropy(p))
        assert c.divergence == pytest.approx(entropy(p, q))
        assert c.cross_entropy == pytest.approx(entropy(p) + entropy(p, q))
        assert c.image_entropy == pytest.approx(entropy(probabilities, axis=1).mean())


def test_models_that_know_all_or_nothing() -> None:
    labels = torch.arange(4).repeat(5)
    sure = torch.eye(4, dtype=torch.float64)[labels] * 900
    first, *_ = explained.by_class(sure, labels, CLASSES)
    assert (first.images, first.entropy, first.cross_entropy, first.image_entropy) == (5, 0, 0, 0)
    (same,) = explained.by_class(torch.zeros(20, 4, dtype=torch.float64), labels, CLASSES)
    for value in (same.entropy, same.cross_entropy, same.image_entropy):
        assert value == pytest.approx(math.log(4))
    assert same.divergence == pytest.approx(0, abs=1e-12)


def test_tables_and_picture(classes: list[ClassInformation]) -> None:
    shift, overflow, gradient, information = map(rows_of, explained.tables("mlp", classes))
    assert [row[0] for row in shift[1:3]] == ["1, 2, 3", "101, 102, 103"]
    assert [row[1] for row in shift[1:3]] == ["0.0900, 0.2447, 0.6652"] * 2
    assert [row[1:] for row in overflow[2:]] == [
        *(["nan", "0"], ["inf", "1000"], ["nan", "0.693147"]),
    ]
    assert 0 <= float(gradient[1][1]) < 1e-9
    for (name, images, *cells), c in zip(information[1:], classes, strict=True):
        assert (name, images) == (c.name, str(c.images))
        values = (c.entropy, c.cross_entropy, c.divergence, c.image_entropy)
        assert cells == [f"{nats:.4f} ({nats / math.log(2):.4f})" for nats in values]
    picture = explained.picture("mlp", classes)
    assert picture.axes[2].get_title() == "mlp: images taken for a class"
    assert figures.png(picture).startswith(b"\x89PNG")


def test_a_model_of_the_workspace(main: Workspace) -> None:
    variant, classes = explained.explain(main, "mlp")
    assert (variant, sum(c.images for c in classes)) == ("mlp", 60)
    with pytest.raises(UserError, match=r"variant 'mlq' is not in params\.yaml"):
        explained.explain(main, "mlq")
