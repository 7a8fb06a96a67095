"""Random streams: known numbers, uniform, independent, the same wherever they are cut."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from refashion.portable import streams
from refashion.portable.streams import Purpose

COUNT = 100_000
UNLIKELY = 1e-4  # a test of a good stream fails once in ten thousand seeds; the seeds are fixed
SEEDS = (0, 1, 2)


def splitmix64(state: int, count: int) -> list[int]:
    """Steele, Lea and Flood's generator, as its authors write it."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ (z >> 31))
    return numbers


# --- known numbers ----------------------------------------------------------------------------


def test_the_oracle_gives_numbers_known_from_the_literature() -> None:
    assert splitmix64(1234567, 5) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("key", [0, 1234567, 2**63 - 1, 2**63, 2**64 - 1, 0x123456789ABCDEF0])
def test_numbers_of_a_plain_splitmix64(key: int) -> None:
    assert [n % 2**64 for n in streams.bits(100, key).tolist()] == splitmix64(key, 100)


def test_keys_are_a_chain_of_splitmix64() -> None:
    word = 0
    for part in (5, Purpose.DROPOUT, 3, 1):
        word = splitmix64((word + part) % 2**64, 1)[0]
    assert streams.key(5, Purpose.DROPOUT, 3, 1) == word


# --- position ---------------------------------------------------------------------------------


@given(first=st.integers(0, 10_000), n=st.integers(0, 50), key=st.integers(0, 2**64 - 1))
def test_a_number_is_a_function_of_key_and_position(first: int, n: int, key: int) -> None:
    part = streams.bits(n, key, first=first)
    assert torch.equal(part, streams.bits(first + n, key)[first:])


@given(
    start=st.integers(0, 300),
    count=st.integers(1, 40),
    width=st.integers(1, 13),
    dropout=st.sampled_from([0.2, 0.5, 0.9]),
)
def test_a_mask_is_a_function_of_its_row(
    start: int, count: int, width: int, dropout: float
) -> None:
    part = streams.bernoulli_rows((start, start + count), width, dropout, 7)
    whole = streams.bernoulli_rows((0, start + count), width, dropout, 7)
    assert part.shape == (count, width) and part.dtype == torch.float32
    assert torch.equal(part, whole[start:])


# --- distributions ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [*SEEDS, 2**63 - 1])
def test_normal(seed: int) -> None:
    x = streams.normal((250, 400), streams.key(seed, Purpose.INITIAL, 0))
    assert x.shape == (250, 400) and x.dtype == torch.float64
    flat = x.flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > UNLIKELY
    n = len(flat)
    assert abs(flat.mean()) < 5 / math.sqrt(n)
    assert abs(flat.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs(stats.skew(flat)) < 5 * math.sqrt(6 / n)
    assert abs(stats.kurtosis(flat)) < 5 * math.sqrt(24 / n)
    assert 3.5 < np.abs(flat).max() < 6


@pytest.mark.parametrize(
    "dropout", [0.0, 1e-9, 7e-6, 1e-5, 0.01, 0.2, 0.5, 0.8, 0.99, 0.99999, 1 - 2**-30]
)
@pytest.mark.parametrize("width", [1, 6, 256])
def test_bernoulli_rates(dropout: float, width: int) -> None:
    """However much is dropped, something is kept: a scale of 1 / p is finite."""
    rows = 20_000
    kept = streams.bernoulli_rows((0, rows), width, dropout, 1).double()
    p = streams.keep_probability(dropout)
    assert p == pytest.approx(1 - dropout, abs=2**-15) and p >= 2**-15
    assert abs(kept.mean().item() - p) <= 5 * math.sqrt(p * (1 - p) / (rows * width))
    assert (kept.mean(0) - p).abs().max() <= 6 * math.sqrt(p * (1 - p) / rows)


def test_units_and_rows_are_dropped_independently() -> None:
    kept = streams.bernoulli_rows((0, 20_000), 8, 0.5, 1).double().numpy()
    between_units = np.corrcoef(kept.T) - np.eye(8)
    assert np.abs(between_units).max() < 5 / math.sqrt(20_000)
    between_rows = [np.corrcoef(kept[:-1, i], kept[1:, i])[0, 1] for i in range(8)]
    assert np.abs(between_rows).max() < 5 / math.sqrt(20_000)


# --- independence -----------------------------------------------------------------------------


def test_streams_share_nothing() -> None:
    """Seeds, purposes and epochs next to one another: no number in common, no correlation."""
    keys = [
        streams.key(seed, purpose, epoch)
        for seed, purpose, epoch in itertools.product(SEEDS, list(Purpose)[:3], (1, 2))
    ]
    numbers = np.stack([streams.bits(20_000, key).numpy() for key in keys])
    assert len(np.unique(numbers)) == numbers.size
    correlations = np.corrcoef(numbers.view(np.uint64).astype(float)) - np.eye(len(keys))
    assert np.abs(correlations).max() < 5 / math.sqrt(20_000)


def test_keys_are_all_different() -> None:
    keys = [
        streams.key(seed, purpose, *counters)
        for seed in (0, 1, 2, 41, 2**31, 2**32, 2**63 - 1)
        for purpose in Purpose
        for counters in [(), *((e,) for e in range(60)), *itertools.product(range(30), range(4))]
    ]
    assert len(set(keys)) == len(keys)
    assert all(0 <= key < 2**64 for key in keys)


# --- permutations -----------------------------------------------------------------------------


@given(n=st.integers(0, 500), key=st.integers(0, 2**64 - 1))
def test_a_permutation_is_the_argsort_of_the_numbers(n: int, key: int) -> None:
    """Of signed ones; as SplitMix64 is a bijection, none of them are equal."""
    numbers = [n - 2**64 if n >= 2**63 else n for n in splitmix64(key, n)]
    order = streams.permutation(n, key)
    assert order.dtype == torch.int64
    assert order.tolist() == sorted(range(n), key=numbers.__getitem__)
