"""The statistics' bits: known, and the same whatever the processor can do."""

import hashlib
import json

import pytest

from refashion.evaluation.comparison import compare
from refashion.evaluation.predictions import Predictions
from refashion.evaluation.statistics import holm, mcnemar, wilson

GOLDEN = "66f4ccbe30ef430e2a6c08647cd20b7e495db917b892b9f6e588b8fff96b83cd"


def digest() -> str:
    """SHA-256 of intervals, p-values and a comparison, of counts all over their range."""
    found: list[object] = []
    for n in (1, 2, 3, 10, 297, 1000, 10_000, 60_000, 10**9):
        found += [wilson(n * i // 97, n) for i in range(98)]
    p_values = [mcnemar(i, i * i % 1009) for i in range(0, 2000, 7)]
    found += [p_values, holm(p_values), mcnemar(0, 1060), mcnemar(0, 1074), mcnemar(0, 1080)]
    rows = range(3000)
    actual = tuple(str(i % 10) for i in rows)
    predictions = {
        name: Predictions(
            actual=actual,
            predicted=tuple(str((i + (i * i % 101 < every)) % 10) for i in rows),
        )
        for name, every in (("b", 10), ("a", 13), ("c", 30), ("d", 0), ("e", 101))
    }
    found.append(compare(predictions))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


@pytest.mark.parametrize(("correct", "n"), [(-1, 10), (11, 10), (0, 0), (1, -1)])
def test_counts_that_cannot_be_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match="must be 0 to n of at least 1"):
        wilson(correct, n)
