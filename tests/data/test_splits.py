from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from refashion.base.errors import UserError
from refashion.data import idx, splits
from refashion.data.catalogue import FILES

TENS = np.arange(100, dtype=np.uint8) % 10
LABELS = npst.arrays(np.uint8, st.integers(1, 300), elements=st.integers(0, 9))
SHARES = st.floats(0, 1, exclude_max=True)
SEEDS = st.integers(0, 2**63 - 1)


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    return splits.stratified(labels, share, seed)[1]


def check(parts: Sequence[np.ndarray], n: int) -> None:
    """Each of `n` examples is in one part, whose indices ascend."""
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(n))
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts)


@given(labels=LABELS, share=SHARES, seed=SEEDS)
def test_stratified(labels: np.ndarray, share: float, seed: int) -> None:
    n = len(labels)
    total = round(share * n)
    assume(share == 0 or 0 < total < n)
    parts = splits.stratified(labels, share, seed)
    check(parts, n)
    chosen = parts[1]
    assert len(chosen) == total
    for label in range(10):
        assert abs((labels[chosen] == label).sum() - share * (labels == label).sum()) < 1
    assert np.array_equal(chosen, held_out(labels, share, seed))


@given(labels=LABELS, share=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_that_leaves_a_split_empty(labels: np.ndarray, share: float) -> None:
    total = round(share * len(labels))
    assume(total in (0, len(labels)))
    with pytest.raises(UserError, match=rf"^data\.validation: {share} of {len(labels)} images"):
        splits.stratified(labels, share, 0)


def test_equal_remainders_go_to_the_lower_labels() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 2)
    assert labels[held_out(labels, 0.25, 0)].tolist() == [0, 1]


@given(labels=LABELS, k=st.integers(1, 20), seed=SEEDS)
@example(labels=np.zeros(50, dtype=np.int64), k=7, seed=0)
@example(labels=TENS, k=100, seed=0)
def test_folds(labels: np.ndarray, k: int, seed: int) -> None:
    n = len(labels)
    assume(k <= n)
    folds = splits.folds(labels, k, seed)
    check(folds, n)
    assert sorted(len(fold) for fold in folds) == sorted((n + i) // k for i in range(k))
    for label in range(10):
        of_class = [int((labels[fold] == label).sum()) for fold in folds]
        assert max(of_class) - min(of_class) <= 1
    assert all(map(np.array_equal, folds, splits.folds(labels, k, seed)))


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 2), (9, 10)])
def test_more_folds_than_examples(n: int, k: int) -> None:
    with pytest.raises(UserError, match=rf"^folds: {k} is more than the {n} examples; lower it"):
        splits.folds(np.zeros(n, dtype=np.uint8), k, 0)


def test_folds_are_not_the_validation_split() -> None:
    """The seed is the same: the streams must not be."""
    chosen = held_out(TENS, 0.2, 0)
    assert all(not np.array_equal(fold, chosen) for fold in splits.folds(TENS, 5, 0))


def test_every_image_is_as_likely_as_its_siblings() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 25)
    times = np.zeros((6, 100))
    for seed in range(400):
        for i, chosen in enumerate([*splits.folds(labels, 5, seed), held_out(labels, 0.2, seed)]):
            times[i, chosen] += 1
    # Binomial(400, 1/5): 80 on average, spread 8; all 600 within 5 spreads.
    assert np.abs(times - 80).max() < 40


def test_split_keeps_the_files_order(raw: Path, arrays: dict[str, np.ndarray]) -> None:
    parts = splits.split(raw, limit=None, validation=0.25, seed=3)
    kept, chosen = splits.stratified(arrays[FILES["train"][1]], 0.25, 3)
    for name, files, rows in (
        ("train", FILES["train"], kept),
        ("validation", FILES["train"], chosen),
        ("test", FILES["test"], np.arange(20)),
    ):
        images, labels = (arrays[file][rows] for file in files)
        assert np.array_equal(parts[name].images, images.reshape(-1, 784))
        assert np.array_equal(parts[name].labels, labels)


def test_limit_takes_the_first_images(raw: Path, arrays: dict[str, np.ndarray]) -> None:
    parts = splits.split(raw, limit=25, validation=0, seed=0)
    assert np.array_equal(parts["train"].images, arrays[FILES["train"][0]][:25].reshape(-1, 784))
    assert parts["validation"].images.shape == (0, 784)
    assert len(parts["test"].labels) == 20
    assert len(splits.split(raw, limit=40, validation=0, seed=0)["train"].labels) == 40


TRAIN_LABELS, (TEST_IMAGES, TEST_LABELS) = FILES["train"][1], FILES["test"]


def without_test_images(raw: Path) -> None:
    (raw / TEST_IMAGES).write_bytes(idx.pack(np.empty((0, 28, 28), np.uint8)))
    (raw / TEST_LABELS).write_bytes(idx.pack(np.empty(0, np.uint8)))


@pytest.mark.parametrize(
    ("spoil", "limit", "problem"),
    [
        (lambda raw: None, 41, r"^data\.limit: 41 is more than the 40 training images"),
        (lambda raw: (raw / TEST_IMAGES).unlink(), None, r"t10k-images-idx3-ubyte\.gz: is missing"),
        (
            lambda raw: (raw / TRAIN_LABELS).write_bytes((raw / TEST_LABELS).read_bytes()),
            None,
            r"train-images.*its 40 images have 20 labels",
        ),
        (without_test_images, None, r"t10k-images.*its 0 images have 0 labels"),
    ],
)
def test_refused(spoil: Callable[[Path], None], limit: int, problem: str, raw: Path) -> None:
    spoil(raw)
    with pytest.raises(UserError, match=problem):
        splits.split(raw, limit=limit, validation=0, seed=0)
