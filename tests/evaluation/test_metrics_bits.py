"""The metrics' bits: known, and the same whatever the processor can do."""

import dataclasses
import hashlib
import json

import pytest
import torch

from refashion.evaluation.metrics import evaluate


def digest() -> str:
    """SHA-256 of all that `evaluate` finds on outputs made of whole numbers."""
    i, j = torch.arange(1000)[:, None], torch.arange(10)
    logits = ((i * 7919 + j * 104729) % 2003 - 1001).to(torch.float64) / 128
    found = evaluate(logits, (i[:, 0] * 31 + logits.argmax(1) * (i[:, 0] % 3)) % 10, "0123456789")
    rows = [dataclasses.astuple(b) for b in found.calibration]
    rows += [dataclasses.astuple(c) for c in found.per_class]
    text = json.dumps([found.metrics, rows, found.confidence.tolist(), found.confusion.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()


GOLDEN = "934ea17acd7026d81c1461b8de8e287b8d86bcfc393505eb8a6d6ca3e99295b9"


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


def test_a_model_that_is_always_sure_and_right_has_no_negative_zero() -> None:
    labels = torch.arange(10)
    found = evaluate(torch.eye(10, dtype=torch.float64) * 900, labels, "0123456789")
    values = [value for value in found.metrics.values() if isinstance(value, float)]
    assert "-0.0" not in map(str, values) and 0.0 in values


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_are_no_class_are_refused(label: int) -> None:
    logits = torch.zeros(2, 10, dtype=torch.float64)
    with pytest.raises(ValueError, match="must be classes 0 to 9"):
        evaluate(logits, torch.tensor([0, label]), "0123456789")


@pytest.mark.parametrize(
    ("outputs", "classes"), [(torch.float32, torch.int64), (torch.float64, torch.int32)]
)
def test_other_types_are_refused(outputs: torch.dtype, classes: torch.dtype) -> None:
    logits, labels = torch.zeros(2, 10, dtype=outputs), torch.zeros(2, dtype=classes)
    with pytest.raises(ValueError, match="must be float64 and int64"):
        evaluate(logits, labels, "0123456789")
