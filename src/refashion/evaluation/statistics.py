"""Intervals and tests that tell whether one model is better than another, or only lucky.

Counts are integers and p-values come from exact binomials, so the answers are the same everywhere.
Floats are added and multiplied one at a time; the one root is correctly rounded (IEEE 754).
"""

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054  # quantile of the normal distribution


def wilson(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927, without continuity correction).

    Lower and upper bound, in [0, 1], where `correct` of `n` trials, at least 1, are successes.
    """
    assert 0 <= correct <= n and n
    z2 = Z_95 * Z_95
    middle = correct + z2 / 2
    spread = Z_95 * math.sqrt(correct * (n - correct) / n + z2 / 4)
    # At the ends the bounds are exactly 0 and 1; rounding must not push them past.
    low = (middle - spread) / (n + z2) if correct else 0.0
    high = (middle + spread) / (n + z2) if correct < n else 1.0
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test on paired right-or-wrong answers.

    `only_first` and `only_second` images are classified correctly by one of the models alone. Were
    both equally good, each of these would be a toss of a coin; this is the chance of a split at
    least as uneven as the one seen, a rational in [0, 1] that is rounded once. It is 1 without
    any such image.
    """
    n = only_first + only_second
    ways = tail = 1
    for i in range(min(only_first, only_second)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return min(2 * tail, 1 << n) / (1 << n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests, in the same order (Holm 1979, step-down).

    Rejecting where the adjusted value is at most 5 % keeps the chance of any false alarm among all
    tests at 5 %, however they depend on each other.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for place, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = largest
    return adjusted
