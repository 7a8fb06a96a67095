import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
import torch

from refashion.base.errors import UserError
from refashion.evaluation.metrics import Evaluation, evaluate

CLASSES = [f"class {i}" for i in range(10)]
Case = tuple[np.ndarray, np.ndarray, np.ndarray, Evaluation]


def example(n: int = 2000, scale: float = 3.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs of a fair model: some labels are the most probable class, some are not."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 10)) * scale
    labels = (logits + rng.gumbel(size=(n, 10)) * 2).argmax(1)
    return torch.from_numpy(logits), torch.from_numpy(labels)


@pytest.fixture(scope="module", params=[(2000, 3.0, 0), (1, 3.0, 1), (37, 0.01, 2), (500, 60, 3)])
def case(request: pytest.FixtureRequest) -> Case:
    """Logits, labels, probabilities by scipy, and our evaluation."""
    logits, labels = example(*request.param)
    p = scipy.special.softmax(logits.numpy(), axis=1)
    return logits.numpy(), labels.numpy(), p, evaluate(logits, labels, CLASSES)


def test_accuracies_are_sklearns(case: Case) -> None:
    logits, labels, _, ours = case
    assert ours.metrics["test_accuracy"] == sklearn.metrics.accuracy_score(labels, logits.argmax(1))
    top2 = sklearn.metrics.top_k_accuracy_score(labels, logits, k=2, labels=range(10))
    assert ours.metrics["test_top2_accuracy"] == pytest.approx(top2, abs=1e-15)
    assert ours.metrics["test_images"] == len(labels)


def test_cross_entropy_is_sklearns(case: Case) -> None:
    logits, labels, p, ours = case
    nats = ours.metrics["test_cross_entropy_nats"]
    if p.min() > 1e-12:  # beyond, scikit-learn clips
        expected = sklearn.metrics.log_loss(labels, p, labels=range(10))
        assert nats == pytest.approx(expected, rel=1e-9)
    log_p = scipy.special.log_softmax(logits, axis=1)
    assert nats == pytest.approx(-log_p[np.arange(len(labels)), labels].mean(), rel=1e-9)
    assert ours.metrics["test_cross_entropy_bits"] == nats / math.log(2)


def test_entropy_is_scipys(case: Case) -> None:
    _, _, p, ours = case
    for unit, base in (("nats", math.e), ("bits", 2)):
        expected = scipy.stats.entropy(p, base=base, axis=1).mean()
        got = ours.metrics[f"test_prediction_entropy_{unit}"]
        assert got == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_calibration_error_is_the_textbooks(case: Case) -> None:
    _, labels, p, ours = case
    confidence, correct = p.max(1), p.argmax(1) == labels
    error, rows = 0.0, []
    for i in range(15):
        low, high = i / 15, (i + 1) / 15
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            means = confidence[inside].mean(), correct[inside].mean()
            error += inside.mean() * abs(means[0] - means[1])
            rows.append((low, high, inside.sum(), *means))
    assert np.array(ours.calibration) == pytest.approx(np.array(rows))
    assert ours.metrics["test_expected_calibration_error"] == pytest.approx(error, abs=1e-12)
    assert ours.confidence.numpy() == pytest.approx(confidence)


def test_scores_are_sklearns(case: Case) -> None:
    logits, labels, _, ours = case
    truth = {"y_true": labels, "y_pred": logits.argmax(1), "labels": range(10)}
    expected = sklearn.metrics.precision_recall_fscore_support(**truth, zero_division=0)
    names, *scores = zip(*ours.per_class, strict=True)
    assert list(names) == CLASSES
    assert np.array(scores) == pytest.approx(np.array(expected), abs=1e-15)
    assert ours.metrics["test_macro_f1"] == pytest.approx(expected[2].mean(), abs=1e-15)
    assert np.array_equal(ours.predicted.numpy(), truth["y_pred"])


def test_equal_outputs_go_to_the_lower_class() -> None:
    logits = torch.tensor([[0.0, 1, 1, 1], [2, 2, 2, 2], [0.0, -0.0, -1, -1]], dtype=torch.float64)
    evaluations = [evaluate(logits, torch.full((3,), label), "abcd") for label in range(4)]
    assert [e.metrics["test_top2_accuracy"] * 3 for e in evaluations] == [2, 3, 1, 0]
    assert evaluations[0].predicted.tolist() == [1, 0, 0]


def test_bins_are_open_below_and_closed_above() -> None:
    """Two equal outputs of two: a confidence of 1/2, inside the eighth bin; one sure: the last."""
    logits = torch.tensor([[0.0, 0.0], [5000.0, 0.0]], dtype=torch.float64)
    bins = evaluate(logits, torch.tensor([0, 1]), "ab").calibration
    assert [(b.low, b.high, b.images) for b in bins] == [(7 / 15, 8 / 15, 1), (14 / 15, 1.0, 1)]
    assert [(b.confidence, b.accuracy) for b in bins] == [(0.5, 1.0), (1.0, 0.0)]


def test_order_of_the_images_changes_no_bit() -> None:
    logits, labels = example()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    original = evaluate(logits, labels, CLASSES)
    shuffled = evaluate(logits[order], labels[order], CLASSES)
    assert original.metrics == shuffled.metrics
    assert original.calibration == shuffled.calibration
    assert torch.equal(original.confidence[order], shuffled.confidence)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_diverged_model_is_refused(value: float) -> None:
    logits, labels = example(3)
    logits[1, 2] = value
    with pytest.raises(UserError, match="not finite"):
        evaluate(logits, labels, CLASSES)
