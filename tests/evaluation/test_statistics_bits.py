"""The statistics' bits: known, and the same whatever the processor can do."""

import hashlib
import json

from refashion.evaluation.comparison import compare
from refashion.evaluation.statistics import holm, mcnemar, wilson

GOLDEN = "66f4ccbe30ef430e2a6c08647cd20b7e495db917b892b9f6e588b8fff96b83cd"


def digest() -> str:
    """SHA-256 of intervals, p-values and a comparison, of counts all over their range."""
    values: list[object] = []
    for n in (1, 2, 3, 10, 297, 1000, 10_000, 60_000, 10**9):
        values += [wilson(n * i // 97, n) for i in range(98)]
    p_values = [mcnemar(i, i * i % 1009) for i in range(0, 2000, 7)]
    values += [p_values, holm(p_values), mcnemar(0, 1060), mcnemar(0, 1074), mcnemar(0, 1080)]
    rows = range(3000)
    predictions = {
        name: {
            "actual": [str(i % 10) for i in rows],
            "predicted": [str((i + (i * i % 101 < limit)) % 10) for i in rows],
        }
        for name, limit in (("b", 10), ("a", 13), ("c", 30), ("d", 0), ("e", 101))
    }
    values.append(compare(predictions))
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN
