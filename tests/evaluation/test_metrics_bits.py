"""The metrics' bits: known, and the same whatever the processor can do."""

import hashlib
import json

import torch

from refashion.evaluation.metrics import evaluate


def digest() -> str:
    """SHA-256 of all that `evaluate` measures on outputs made of whole numbers."""
    i, j = torch.arange(1000)[:, None], torch.arange(10)
    logits = ((i * 7919 + j * 104729) % 2003 - 1001).to(torch.float64) / 128
    labels = (i[:, 0] * 31 + logits.argmax(1) * (i[:, 0] % 3)) % 10
    result = evaluate(logits, labels, "0123456789")
    rows = [*result.calibration, *result.per_class]
    confusion = torch.bincount(labels * 10 + result.predicted, minlength=100).reshape(10, 10)
    text = json.dumps([result.metrics, rows, result.confidence.tolist(), confusion.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()


GOLDEN = "934ea17acd7026d81c1461b8de8e287b8d86bcfc393505eb8a6d6ca3e99295b9"


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


def test_a_model_that_is_always_sure_and_right_has_no_negative_zero() -> None:
    logits = torch.eye(10, dtype=torch.float64) * 900
    metrics = evaluate(logits, torch.arange(10), "0123456789").metrics
    assert "-0.0" not in map(str, metrics.values()) and 0.0 in metrics.values()
