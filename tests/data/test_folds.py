"""Which example comes to which fold."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from refashion.base.errors import UserError
from refashion.data import splits

LABELS = npst.arrays(np.uint8, st.integers(1, 200), elements=st.integers(0, 9))
SEEDS = st.integers(0, 2**63 - 1)


@given(labels=LABELS, k=st.integers(1, 20), seed=SEEDS)
def test_folds(labels: np.ndarray, k: int, seed: int) -> None:
    n = len(labels)
    assume(k <= n)
    folds = splits.folds(labels, k, seed)
    assert len(folds) == k
    assert np.array_equal(np.sort(np.concatenate(folds)), np.arange(n))
    assert all(fold.dtype == np.int64 and (np.diff(fold) > 0).all() for fold in folds)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    for label in range(10):
        of_class = [int((labels[fold] == label).sum()) for fold in folds]
        assert max(of_class) - min(of_class) <= 1
    again = splits.folds(labels, k, seed)
    assert all(np.array_equal(one, other) for one, other in zip(folds, again, strict=True))


@given(n=st.integers(1, 100), k=st.integers(1, 100), seed=SEEDS)
def test_folds_without_classes(n: int, k: int, seed: int) -> None:
    assume(k <= n)
    folds = splits.folds(np.zeros(n, dtype=np.int64), k, seed)
    assert sorted(len(fold) for fold in folds) == sorted((n + i) // k for i in range(k))


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 2), (9, 10)])
def test_more_folds_than_examples(n: int, k: int) -> None:
    with pytest.raises(UserError, match=rf"^folds: {k} is more than the {n} examples; lower it"):
        splits.folds(np.zeros(n, dtype=np.uint8), k, 0)


def test_as_many_folds_as_examples_leave_one_out() -> None:
    folds = splits.folds(np.arange(10, dtype=np.uint8), 10, 0)
    assert sorted(fold.tolist() for fold in folds) == [[i] for i in range(10)]


def test_other_seeds_make_other_folds() -> None:
    labels = np.arange(100, dtype=np.uint8) % 10
    first = {tuple(splits.folds(labels, 5, seed)[0]) for seed in range(20)}
    assert len(first) == 20


def test_every_example_is_as_likely_in_each_fold() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 25)
    times = np.zeros((5, 100))
    for seed in range(400):
        for fold, chosen in enumerate(splits.folds(labels, 5, seed)):
            times[fold, chosen] += 1
    # Binomial(400, 1/5): 80 on average, spread 8; all 500 within 5 spreads.
    assert np.abs(times - 80).max() < 40


def test_folds_are_not_the_validation_split() -> None:
    """The seed is the same: the streams must not be."""
    labels = np.arange(100, dtype=np.uint8) % 10
    held_out = splits.stratified(labels, 0.2, 0)[1]
    assert all(not np.array_equal(fold, held_out) for fold in splits.folds(labels, 5, 0))


def test_golden() -> None:
    # Moves only if the promise "same seed, same folds" is broken.
    folds = splits.folds(np.arange(12, dtype=np.uint8) % 3, 4, 7)
    assert [fold.tolist() for fold in folds] == [[7, 9, 11], [2, 6, 10], [0, 4, 5], [1, 3, 8]]
