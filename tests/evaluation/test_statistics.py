import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from refashion.evaluation.statistics import holm, mcnemar, wilson

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
@example((0, 10))
@example((10, 10))
def test_wilson_is_scipys_and_holds_the_share(count: tuple[int, int]) -> None:
    correct, n = count
    low, high = wilson(correct, n)
    expected = binomtest(correct, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


disagreements = st.integers(0, 300)


@given(disagreements, disagreements)
@example(0, 0)
@example(0, 1080)
def test_mcnemar_is_the_correctly_rounded_rational(b: int, c: int) -> None:
    n = b + c
    tail = sum(math.comb(n, i) for i in range(min(b, c) + 1))
    assert mcnemar(b, c) == float(min(Fraction(2 * tail, 2**n), Fraction(1)))


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_closes_bonferroni(p_values: list[float]) -> None:
    """Holm's adjusted p is the largest Bonferroni p of all sets of tests that hold this one."""
    everything = range(len(p_values))
    sets = [s for size in everything for s in itertools.combinations(everything, size + 1)]
    expected = [
        max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets if i in s)
        for i in everything
    ]
    assert holm(p_values) == expected
