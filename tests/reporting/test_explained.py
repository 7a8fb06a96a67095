"""What the explanation says of softmax and of a model, against scipy."""

import math
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.portable import functions
from refashion.portable import softmax as portable
from refashion.reporting import explained
from refashion.reporting.explained import ClassInformation, Explained
from refashion.tracking import figures

CLASSES = ("sock", "hat", "tie", "scarf")


def made_up(n: int = 200, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Logits that never put the last class first, and labels that they are often right about."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(CLASSES), n)
    logits = rng.normal(0, scale, (n, len(CLASSES)))
    logits[np.arange(n), labels] += scale
    logits[:, -1] -= 12
    return torch.tensor(logits), torch.tensor(labels)


@pytest.fixture(scope="module")
def classes() -> list[ClassInformation]:
    return explained._by_class(*made_up(), CLASSES)


@pytest.fixture(scope="module")
def found(classes: list[ClassInformation]) -> Explained:
    return Explained(
        variant="mlp",
        dataset="fashion_mnist",
        gradient_error=explained._gradient_error(),
        classes=classes,
    )


# --- the loss ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("logits", "naive", "stable"),
    [
        ([1000.0, 0.0], math.nan, 0.0),
        ([0.0, 1000.0], math.inf, 1000.0),
        ([-1000.0, -1000.0], math.nan, math.log(2)),
    ],
)
def test_the_definition_overflows(logits: list[float], naive: float, stable: float) -> None:
    o = torch.tensor([logits], dtype=torch.float64)
    np.testing.assert_equal(float(explained.naive(o)[0]), naive)
    loss, _ = portable.cross_entropy(o, torch.tensor([0]))
    assert float(loss) == pytest.approx(stable)


def test_small_logits_need_no_care() -> None:
    logits = torch.tensor(np.random.default_rng(0).normal(0, 5, (100, 4)))
    stable, _ = portable.cross_entropy(
        logits, torch.zeros(100, dtype=torch.int64), reduction="none"
    )
    torch.testing.assert_close(explained.naive(logits), stable, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(stable, torch.tensor(-log_softmax(logits.numpy(), 1)[:, 0]))


def test_the_gradient_is_softmax_less_truth() -> None:
    assert 0 <= explained._gradient_error() < 1e-9


# --- what a model tells -----------------------------------------------------------------------


def test_information_by_class(classes: list[ClassInformation]) -> None:
    logits, labels = (tensor.numpy() for tensor in made_up())
    predicted = logits.argmax(1)
    assert [c.name for c in classes] == list(CLASSES[:3])  # nothing is taken for a scarf
    for i, c in enumerate(classes):
        own, truth = softmax(logits[predicted == i], 1), labels[predicted == i]
        p, q = np.bincount(truth, minlength=4) / len(truth), own.mean(0)
        assert c.images == len(truth)
        assert c.entropy == pytest.approx(entropy(p), rel=1e-9)
        assert c.divergence == pytest.approx(entropy(p, q), rel=1e-6)
        assert c.cross_entropy == pytest.approx(entropy(p) + entropy(p, q), rel=1e-6)
        assert c.doubt == pytest.approx(entropy(own, axis=1).mean(), rel=1e-9)
        assert c.divergence == c.cross_entropy - c.entropy >= 0
    assert sum(c.images for c in classes) == 200


def test_a_sure_model_that_is_right_tells_all() -> None:
    labels = torch.arange(3).repeat(5)
    sure = torch.eye(3, dtype=torch.float64)[labels] * 900
    (first, *_) = explained._by_class(sure, labels, "abc")
    assert (first.images, first.entropy, first.cross_entropy, first.doubt) == (5, 0, 0, 0)


def test_sums_do_not_depend_on_their_order_or_the_version_of_python() -> None:
    p = torch.arange(1, 20, dtype=torch.float64) / 190
    q = p.flip(0)
    expected = -float(sum(map(Fraction, (p * functions.log(q)).tolist())))
    assert explained._information(p, q) == explained._information(q.flip(0), p.flip(0)) == expected
    assert explained._information(q, p) == expected


def test_a_model_that_knows_nothing() -> None:
    """Every image is taken for the first class, with the same probability of each."""
    labels = torch.arange(8) % 4
    (one,) = explained._by_class(torch.zeros(8, 4, dtype=torch.float64), labels, CLASSES)
    for value in (one.entropy, one.cross_entropy, one.doubt):
        assert value == pytest.approx(math.log(4))
    assert one.divergence == pytest.approx(0, abs=1e-12)


# --- tables and pictures ----------------------------------------------------------------------


def test_tables(found: Explained) -> None:
    *_, gradient, table = explained.tables(found)
    assert list(gradient.columns[1].cells) == [f"{found.gradient_error:.1e}"]
    names, images, *columns = (list(column.cells) for column in table.columns)
    assert names == [c.name for c in found.classes]
    assert images == [str(c.images) for c in found.classes]
    told = [(c.entropy, c.cross_entropy, c.divergence, c.doubt) for c in found.classes]
    for values, cells in zip(zip(*told, strict=True), columns, strict=True):
        for value, cell in zip(values, cells, strict=True):
            nats, bits = map(float, re.fullmatch(r"(-?[\d.]+) \((-?[\d.]+)\)", cell).groups())
            assert nats == pytest.approx(value, abs=6e-5)
            assert bits == pytest.approx(value / math.log(2), abs=6e-5)


def test_softmax_forgets_a_shift(found: Explained) -> None:
    first, overflow, *_ = explained.tables(found)
    logits, values = (list(column.cells) for column in first.columns)
    assert values[0] == values[1] == "0.0900, 0.2447, 0.6652"
    assert logits[:2] == ["1, 2, 3", "101, 102, 103"]
    naive, stable = (list(column.cells) for column in overflow.columns[1:])
    assert naive[1:] == ["nan", "inf", "nan"]
    assert stable[1:] == ["0", "1000", "0.693147"]


def test_picture(found: Explained) -> None:
    picture = explained.picture(found)
    assert [axes.get_title() for axes in picture.axes][2] == "mlp: images taken for a class"
    assert figures.png(picture).startswith(b"\x89PNG")


# --- of a workspace ---------------------------------------------------------------------------


@pytest.fixture
def workspace(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    root = roots["main"]
    monkeypatch.setattr(paths, "PARAMS", root / "params.yaml")
    monkeypatch.setattr(paths, "MODELS", root / "models")
    monkeypatch.setattr(paths, "TEST", root / "data/prepared/test")
    return root


@pytest.mark.usefixtures("workspace")
def test_a_model_of_the_workspace() -> None:
    found = explained.explain("mlp")
    assert (found.variant, found.dataset) == ("mlp", "fashion_mnist")
    assert sum(c.images for c in found.classes) == 60
    assert all(c.divergence >= 0 for c in found.classes)
    assert explained.explain("mlp") == found


@pytest.mark.usefixtures("workspace")
def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"variant 'mlq' is not in params\.yaml"):
        explained.explain("mlq")
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"images\.npy: is missing"):
        patch.setattr(paths, "TEST", tmp_path / "nothing")
        explained.explain("mlp")
    monkeypatch.setattr(paths, "MODELS", tmp_path)
    with pytest.raises(UserError, match=r"weights\.safetensors: there is no such file"):
        explained.explain("mlp")
