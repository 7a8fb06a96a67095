from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from refashion.base.errors import UserError
from refashion.data import splits
from refashion.data.catalogue import FILES

LABELS = npst.arrays(np.uint8, st.integers(2, 300), elements=st.integers(0, 9))
SHARES = st.floats(0, 1, exclude_max=True)
SEEDS = st.integers(0, 2**63 - 1)


@given(labels=LABELS, share=SHARES, seed=SEEDS)
def test_stratified(labels: np.ndarray, share: float, seed: int) -> None:
    n = len(labels)
    total = round(share * n)
    assume(share == 0 or 0 < total < n)
    kept, held_out = splits.stratified(labels, share, seed)
    assert len(held_out) == total
    assert kept.dtype == held_out.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([kept, held_out])), np.arange(n))
    assert (np.diff(kept) > 0).all() and (np.diff(held_out) > 0).all()
    for label in range(10):
        assert abs((labels[held_out] == label).sum() - share * (labels == label).sum()) < 1
    for one, other in zip((kept, held_out), splits.stratified(labels, share, seed), strict=True):
        assert np.array_equal(one, other)


@given(labels=LABELS, share=st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_share_that_leaves_a_split_empty(labels: np.ndarray, share: float) -> None:
    total = round(share * len(labels))
    assume(total in (0, len(labels)))
    with pytest.raises(UserError, match=rf"^data\.validation: {share} of {len(labels)} images"):
        splits.stratified(labels, share, 0)


def test_other_seeds_hold_out_other_images() -> None:
    labels = np.arange(1000, dtype=np.uint8) % 10
    chosen = {tuple(splits.stratified(labels, 0.1, seed)[1]) for seed in range(20)}
    assert len(chosen) == 20


def test_every_image_is_as_likely_as_its_siblings() -> None:
    labels = np.repeat(np.arange(10, dtype=np.uint8), 20)
    times = np.zeros(200)
    for seed in range(400):
        times[splits.stratified(labels, 0.25, seed)[1]] += 1
    # Binomial(400, 1/4): 100 on average, spread 8.7; all 200 within 5 spreads.
    assert np.abs(times - 100).max() < 43
    assert times.sum() == 400 * 50


def test_golden() -> None:
    # Moves only if the promise "same seed, same split" is broken.
    labels = np.arange(60, dtype=np.uint8) % 10
    assert splits.stratified(labels, 0.15, 7)[1].tolist() == [14, 20, 22, 25, 37, 38, 41, 46, 53]


def test_equal_remainders_go_to_the_lower_labels() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), 2)
    held_out = splits.stratified(labels, 0.25, 0)[1]
    assert labels[held_out].tolist() == [0, 1]


def test_split_keeps_the_files_order(raw: Path, arrays: dict[str, np.ndarray]) -> None:
    found = splits.split(raw, limit=None, validation=0.25, seed=3)
    assert {name: len(s.labels) for name, s in found.items()} == {
        "train": 30,
        "validation": 10,
        "test": 20,
    }
    images_name, labels_name = FILES["train"]
    images = arrays[images_name].reshape(-1, 784)
    kept, held_out = splits.stratified(arrays[labels_name], 0.25, 3)
    assert np.array_equal(found["train"].images, images[kept])
    assert np.array_equal(found["validation"].images, images[held_out])
    assert np.array_equal(found["validation"].labels, arrays[labels_name][held_out])
    assert np.array_equal(found["test"].images, arrays[FILES["test"][0]].reshape(-1, 784))


def test_limit_takes_the_first_images(raw: Path, arrays: dict[str, np.ndarray]) -> None:
    found = splits.split(raw, limit=25, validation=0, seed=0)
    assert np.array_equal(found["train"].images, arrays[FILES["train"][0]][:25].reshape(-1, 784))
    assert found["validation"].images.shape == (0, 784)
    assert len(found["test"].labels) == 20
    assert len(splits.split(raw, limit=40, validation=0, seed=0)["train"].labels) == 40


def test_limit_above_what_there_is(raw: Path) -> None:
    with pytest.raises(UserError, match=r"^data\.limit: 41 is more than the 40 training images"):
        splits.split(raw, limit=41, validation=0, seed=0)


def test_images_without_labels(raw: Path) -> None:
    train_labels, test_labels = FILES["train"][1], FILES["test"][1]
    (raw / train_labels).write_bytes((raw / test_labels).read_bytes())
    with pytest.raises(UserError, match=r"train-images.*its 40 images have 20 labels"):
        splits.split(raw, limit=None, validation=0, seed=0)


def test_missing_file(raw: Path) -> None:
    (raw / FILES["test"][0]).unlink()
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte\.gz: is missing"):
        splits.split(raw, limit=None, validation=0, seed=0)
