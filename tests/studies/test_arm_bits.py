"""The bits of means and spreads: known, and the same whatever the processor can do."""

import hashlib
import json
import math
from fractions import Fraction
from random import Random

from refashion.studies import arm, history
from refashion.studies.house_prices import Submission

GOLDEN = "dc582cbb434934ba86320aff3e23fada207eb7657d1da71786e25c004e7f367d"


def digest() -> str:
    """SHA-256 of means, spreads and histories of numbers of all sizes."""
    found: list[object] = []
    for n in range(2, 2000):
        own = values(n)
        rows = [[{"x": x, "y": -x * x}, {"x": x / 3, "y": x}] for x in own]
        found += [arm.spread("x", own), arm.last(rows), history.digest(arm.over(rows))]
    submission = Submission(model="mlp", ids=["1", "é"], prices=values(2))
    found.append(submission.digest)
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def values(n: int) -> list[float]:
    """Numbers that are close together, or orders of magnitude apart."""
    numbers = Random(n)
    spread = 2.0 ** -(n % 60)
    return [1 + spread * numbers.random() for _ in range(2 + n % 20)]


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


def test_deviations_are_rounded_once() -> None:
    """The nearest float to the root of the exact variance: half way to either neighbour holds it.

    Whatever the version of the standard library.
    """
    for n in range(2, 500):
        own = values(n)
        exact = [Fraction(x) for x in own]
        mean = sum(exact) / len(exact)
        variance = sum((x - mean) * (x - mean) for x in exact) / (len(exact) - 1)
        found = arm.spread("x", own)["x_deviation"]
        below, above = (
            (Fraction(found) + Fraction(math.nextafter(found, to))) / 2 for to in (0, math.inf)
        )
        assert below * below <= variance <= above * above
