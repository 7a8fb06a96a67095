"""Products and sums against Python's integers, both ways, at the edges of every bound."""

import contextlib
import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from refashion.portable import exact, multiply
from refashion.portable.exact import Fixed

WAYS = ("float64", "int8")


@contextlib.contextmanager
def going(way: str) -> Iterator[None]:
    """Take one way, however small the product."""
    with multiply.products(way) as taken:
        yield
    assert not taken["int8" if way == "float64" else "float64"] or way == "int8"


def whole(x: Fixed) -> np.ndarray:
    """The integers of `x`, as Python's own."""
    numbers = x.integers.numpy().astype(np.int64)
    return numbers.astype(object)


def oracle(a: Fixed, b: Fixed) -> Tensor:
    """The product of the integers, rounded once to float64, times the scales."""
    sums = np.frompyfunc(float, 1, 1)(whole(a) @ whole(b)).astype(np.float64)
    return torch.from_numpy(sums) * (a.scale * b.scale)


def same_bits(x: Tensor, y: Tensor) -> bool:
    """Equal in every bit, but for the sign of zero."""
    return torch.equal((x + 0.0).view(torch.int64), (y + 0.0).view(torch.int64))


def random_pixels(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def random_floats(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def huge_among_tiny(m: int, n: int) -> Tensor:
    x = random_floats(m, n) * 1e-6
    x[m // 2, n // 2] = 1e6
    return x


SHAPES = [(1, 1, 1), (1, 5, 3), (3, 1, 5), (7, 1, 1), (2, 784, 3), (7, 33, 9), (5, 255, 10)]
KINDS: dict[str, Callable[[int, int], Tensor]] = {
    "random": random_floats,
    "zeros": lambda m, n: torch.zeros(m, n, dtype=torch.float64),
    "largest": lambda m, n: torch.ones(m, n, dtype=torch.float64).mul_(1 - 2**-53),
    "smallest": lambda m, n: torch.ones(m, n, dtype=torch.float64).mul_(2**-53 - 1),
    "huge among tiny": huge_among_tiny,
    "1e-30": lambda m, n: random_floats(m, n) * 1e-30,
    "1e30": lambda m, n: random_floats(m, n) * 1e30,
}

# --- the grid ---------------------------------------------------------------------------------


@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=5),
        elements=st.floats(-1e300, 1e300, allow_subnormal=False),
    ),
    bits=st.integers(2, 50),
)
def test_quantise_rounds_every_number_once_half_to_even(x: np.ndarray, bits: int) -> None:
    fixed = exact.quantise(torch.from_numpy(x), bits)
    step = Fraction(float(fixed.scale))
    largest = max(Fraction(float(abs(v))) for v in x.flat)
    for number, integer in zip(x.flat, fixed.integers.flatten().tolist(), strict=True):
        assert integer == round(Fraction(float(number)) / step)
        assert abs(integer) <= 2**bits
    assert step.numerator == 1 or step.denominator == 1
    assert not largest or largest < 2**bits * step or largest == (2**bits - 1) * step
    if largest >= Fraction(2) ** -90:  # the grid is no coarser than it must be
        assert largest >= 2 ** (bits - 1) * step


@pytest.mark.parametrize("bits", [2, 14, 22])
@pytest.mark.parametrize("kind", KINDS)
def test_quantise_gives_float32_and_float64_the_same_integers(kind: str, bits: int) -> None:
    x = KINDS[kind](9, 7).to(torch.float32)
    narrow, wide = exact.quantise(x, bits), exact.quantise(x.to(torch.float64), bits)
    assert narrow.integers.dtype == torch.float32
    assert torch.equal(narrow.integers.to(torch.float64), wide.integers)
    assert narrow.scale == wide.scale


def test_quantise_leaves_its_arguments_alone() -> None:
    x = random_floats(4, 5)
    largest = exact.magnitude(x, by_row=True)
    copies = x.clone(), largest.clone()
    exact.quantise(x, 20, largest)
    assert torch.equal(x, copies[0]) and torch.equal(largest, copies[1])


def test_quantise_keeps_numbers_that_already_lie_on_the_grid() -> None:
    x = torch.tensor([[0.5, -0.25], [1.0, 3.0]], dtype=torch.float64)
    assert torch.equal(exact.quantise(x, 22).value, x)


@pytest.mark.parametrize("tiny", [0.0, -0.0, 5e-324, 2.0**-1022, 1e-200])
def test_quantise_rounds_nothing_but_tiny_numbers_to_zero(tiny: float) -> None:
    fixed = exact.quantise(torch.full((3, 2), tiny, dtype=torch.float64), 22)
    assert not fixed.integers.any() and 0 < fixed.scale < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_have_grids_of_their_own(dtype: torch.dtype) -> None:
    """No row's integers depend on its neighbours."""
    x = random_floats(8, 6, dtype=dtype) * 10.0 ** torch.arange(-4, 4, dtype=dtype)[:, None]
    fixed = exact.quantise(x, 20, exact.magnitude(x, by_row=True))
    for i in range(len(x)):
        alone = exact.quantise(x[i : i + 1], 20)
        assert torch.equal(fixed.integers[i : i + 1], alone.integers)
        assert fixed.scale[i, 0] == alone.scale
    order = torch.arange(8).flip(0)
    shuffled = exact.quantise(x[order], 20, exact.magnitude(x[order], by_row=True))
    assert torch.equal(shuffled.integers, fixed.integers[order])


def test_transposing_transposes_the_value() -> None:
    x = random_floats(3, 3) * torch.tensor([[1.0], [100.0], [10000.0]], dtype=torch.float64)
    for largest in (None, exact.magnitude(x, by_row=True)):
        fixed = exact.quantise(x, 20, largest)
        assert torch.equal(fixed.mT.value, fixed.value.mT)


# --- products ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_times_floats(shape: tuple[int, int, int], transposed: bool, way: str) -> None:
    m, k, n = shape
    for pixels in (random_pixels(m, k), torch.zeros(m, k).byte(), torch.full((m, k), 255).byte()):
        images = exact.pixels(pixels.mT.contiguous()).mT if transposed else exact.pixels(pixels)
        for kind, make in KINDS.items():
            b = exact.quantise(make(k, n), 22)
            with going(way):
                assert same_bits(exact.product(images, b), oracle(images, b)), kind


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bits", [(14, 22), (22, 14), (14, 14), (22, 22), (2, 3), (26, 26)])
@pytest.mark.parametrize("shape", SHAPES)
def test_floats_times_floats(shape: tuple[int, int, int], bits: tuple[int, int], way: str) -> None:
    m, k, n = shape
    kinds = list(KINDS)
    for left, right in [*zip(kinds, kinds, strict=True), *itertools.pairwise(kinds)]:
        a = exact.quantise(KINDS[left](m, k), bits[0])
        b = exact.quantise(KINDS[right](k, n), bits[1])
        with going(way):
            assert same_bits(exact.product(a, b), oracle(a, b)), (left, right)


@pytest.mark.parametrize("way", WAYS)
def test_every_layout_of_the_operands(way: str) -> None:
    a, b = exact.quantise(random_floats(6, 20), 14), exact.quantise(random_floats(20, 9), 22)
    want = oracle(a, b)
    for left in (a, exact.quantise(random_floats(6, 20).mT.contiguous(), 14).mT):
        for right in (b, exact.quantise(random_floats(20, 9).mT.contiguous(), 22).mT):
            with going(way):
                assert same_bits(exact.product(left, right), want)
                assert same_bits(exact.product(right.mT, left.mT), want.mT)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    m=st.integers(1, 6),
    k=st.integers(1, 40),
    n=st.integers(1, 6),
    bits=st.tuples(st.integers(2, 50), st.integers(2, 50)),
    pixels=st.booleans(),
    kinds=st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(KINDS))),
)
def test_any_number_of_bits(
    seed: int,
    m: int,
    k: int,
    n: int,
    bits: tuple[int, int],
    pixels: bool,
    kinds: tuple[str, str],
) -> None:
    """Both ways give the mathematical integer, or refuse; whatever the digits make of it."""
    left = KINDS[kinds[0]](m, k)
    a = exact.pixels(random_pixels(m, k, seed=seed)) if pixels else exact.quantise(left, bits[0])
    b = exact.quantise(KINDS[kinds[1]](k, n), bits[1])
    assume(a.bits + b.bits <= 52 and k * 2 ** (a.bits + b.bits) < 2**63)
    for way in WAYS:
        with going(way):
            assert same_bits(exact.product(a, b), oracle(a, b)), way


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bits", [(7, 23), (15, 15), (15, 22), (15, 23), (23, 15), (22, 22)])
def test_digits_whose_partial_sums_are_as_large_as_they_get(
    bits: tuple[int, int], way: str
) -> None:
    """All operands at their bound, one inner length below the next piece, last bit odd."""
    k = min(2 ** (exact.EXACT_FLOAT64 - sum(bits)), exact.EXACT_INT8_TERMS)
    for sign in (1.0, -1.0):
        a = torch.full((2, k), sign * (2.0 ** bits[0] - 1), dtype=torch.float64)
        b = torch.full((k, 2), 2.0 ** bits[1] - 1, dtype=torch.float64)
        a[1, 0] -= sign
        b[-1, 1] -= 1.0
        want = a.numpy().astype(np.int64) @ b.numpy().astype(np.int64)
        with going(way):
            got = exact.product(Fixed(a, 1.0, bits[0]), Fixed(b, 1.0, bits[1]))
        assert np.array_equal(got.numpy().astype(np.int64), want)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pixels", [False, True])
def test_long_inner_dimensions_are_summed_in_pieces(pixels: bool, way: str) -> None:
    floats = exact.quantise(random_floats(3, 50), 10)
    a = exact.pixels(random_pixels(3, 50)) if pixels else floats
    b = exact.quantise(random_floats(50, 4), 8)
    with (
        going(way),
        mock.patch.object(exact, "EXACT_FLOAT64", a.bits + b.bits + 3),  # pieces of 8 terms,
        mock.patch.object(exact, "EXACT_INT8_TERMS", 5),  # and fewer
    ):
        assert same_bits(exact.product(a, b), oracle(a, b))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bits", [8, 14, 22])
def test_a_hundred_thousand_terms(bits: int, way: str) -> None:
    """Longer than one int8 product may be, at the extremes: int64 holds the oracle."""
    k = 2**17 + 1
    b = torch.full((k, 2), 2.0**22, dtype=torch.float64)
    b[:, 1] = -b[:, 1] + torch.arange(k) % 3
    if bits == 8:
        a = exact.pixels(torch.full((3, k), 255).byte())
    else:
        a = Fixed(torch.full((3, k), -(2.0**bits), dtype=torch.float64), 1.0, bits)
    want = a.integers.numpy().astype(np.int64) @ b.numpy().astype(np.int64)
    with going(way):
        got = exact.product(a, Fixed(b, 1.0, 22))
    assert np.array_equal(got.numpy(), want.astype(np.float64))


def test_both_ways_at_the_engines_own_sizes() -> None:
    """Bit for bit: forward, backward and weight gradient of a batch."""
    x = exact.pixels(random_pixels(256, 784))
    w = exact.quantise(random_floats(784, 256, dtype=torch.float32), 22)
    hidden = exact.quantise(random_floats(256, 256, seed=1), 14)
    error = exact.quantise(random_floats(256, 256, seed=2), 14)
    square = exact.quantise(random_floats(256, 256, seed=3, dtype=torch.float32), 22)
    pairs = [(x, w), (x.mT, error), (hidden, square), (error, square.mT), (hidden.mT, error)]
    for a, b in pairs:
        found = []
        for way in WAYS:
            with going(way):
                found.append(exact.product(a, b, 1 / 255))
        assert same_bits(*found)


@pytest.mark.parametrize("factor", [1.0, 1 / 255, 1e-3, -7.0])
def test_the_factor_is_multiplied_in_once(factor: float) -> None:
    a, b = exact.quantise(random_floats(3, 8), 14), exact.quantise(random_floats(8, 2), 22)
    sums = np.frompyfunc(float, 1, 1)(whole(a) @ whole(b)).astype(np.float64)
    want = torch.from_numpy(sums) * (a.scale * b.scale * factor)
    assert same_bits(exact.product(a, b, factor), want)


# --- properties -------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32), way=st.sampled_from(WAYS), k=st.integers(1, 60))
def test_the_order_of_the_terms_does_not_matter(seed: int, way: str, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(k, generator=generator)
    x, w = random_pixels(k, 5, seed=seed), random_floats(k, 4, seed=seed)
    h = random_floats(k, 3, seed=seed + 1)
    with going(way):
        for a, a_shuffled, bits in (
            (exact.pixels(x), exact.pixels(x[order]), 22),
            (exact.quantise(h, 14), exact.quantise(h[order], 14), 14),
        ):
            straight = exact.product(a.mT, exact.quantise(w, bits))
            shuffled = exact.product(a_shuffled.mT, exact.quantise(w[order], bits))
            assert same_bits(straight, shuffled)
    sums = exact.total(exact.quantise(w, 22), -2), exact.total(exact.quantise(w[order], 22), -2)
    assert same_bits(*sums)
    assert exact.mean(w[:, 0]) == exact.mean(w[order, 0])


@given(
    seed=st.integers(0, 2**32),
    way=st.sampled_from(WAYS),
    cuts=st.lists(st.integers(1, 29), max_size=4, unique=True).map(sorted),
)
def test_shards_of_a_batch_add_up_to_the_whole(seed: int, way: str, cuts: list[int]) -> None:
    """With the common magnitude, whoever computes which rows of the batch."""
    x, error = random_pixels(30, 12, seed=seed), random_floats(30, 5, seed=seed)
    shards = [slice(i, j) for i, j in zip([0, *cuts], [*cuts, 30], strict=True)]
    parts = [exact.magnitude(error[rows]) for rows in shards]
    largest = max(parts)
    with going(way):
        whole_batch = exact.product(exact.pixels(x).mT, exact.quantise(error, 22))
        products = [
            exact.product(exact.pixels(x[rows]).mT, exact.quantise(error[rows], 22, largest))
            for rows in shards
        ]
    assert same_bits(torch.stack(products).sum(0), whole_batch)
    totals = [exact.total(exact.quantise(error[rows], 22, largest), -2) for rows in shards]
    assert same_bits(torch.stack(totals).sum(0), exact.total(exact.quantise(error, 22), -2))


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    way=st.sampled_from(WAYS),
    spread=st.integers(0, 20),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_batched_models_equal_solo_models(
    seed: int, way: str, spread: int, dtype: torch.dtype
) -> None:
    sizes = 10.0 ** torch.linspace(-spread / 2, spread / 2, 4, dtype=dtype)[:, None, None]
    h = random_floats(4, 6, 20, seed=seed, dtype=dtype) * sizes
    w = random_floats(4, 20, 3, seed=seed + 1, dtype=dtype) / sizes
    a, b = exact.quantise(h, 14), exact.quantise(w, 22)
    sums = exact.total(b, -2), exact.total(b, -1)
    with going(way):
        together = exact.product(a, b)
        for i in range(4):
            solo_a, solo_b = exact.quantise(h[i], 14), exact.quantise(w[i], 22)
            assert same_bits(together[i], exact.product(solo_a, solo_b))
            assert same_bits(sums[0][i], exact.total(solo_b, -2))
            assert same_bits(sums[1][i], exact.total(solo_b, -1))
        shared = exact.product(exact.pixels(random_pixels(6, 20, seed=seed)), b)
        for i in range(4):
            solo = exact.product(
                exact.pixels(random_pixels(6, 20, seed=seed)), exact.quantise(w[i], 22)
            )
            assert same_bits(shared[i], solo)


def test_long_batched_products_are_summed_in_pieces_too() -> None:
    a, b = exact.quantise(random_floats(2, 3, 50), 10), exact.quantise(random_floats(2, 50, 4), 8)
    want = exact.product(a, b)
    with mock.patch.object(exact, "EXACT_FLOAT64", 21):
        assert same_bits(exact.product(a, b), want)


# --- sums -------------------------------------------------------------------------------------


@given(
    x=hnp.arrays(
        np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-1e9, 1e9)
    ),
    bits=st.integers(2, 48),
    dim=st.sampled_from([-1, -2]),
)
def test_totals_are_the_integers_sum(x: np.ndarray, bits: int, dim: int) -> None:
    fixed = exact.quantise(torch.from_numpy(x), bits)
    want = np.frompyfunc(float, 1, 1)(whole(fixed).sum(axis=dim)).astype(np.float64)
    assert same_bits(exact.total(fixed, dim), torch.from_numpy(want) * fixed.scale)


@pytest.mark.parametrize("n", [1, 2, 1000, 100_000])
def test_mean_is_near_the_true_mean(n: int) -> None:
    values = random_floats(n).abs()
    assert exact.mean(values) == pytest.approx(float(values.mean()), rel=1e-7)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    assert exact.mean(values[order]) == exact.mean(values)


def test_mean_of_nothing_is_nan() -> None:
    assert np.isnan(exact.mean(torch.empty(0, dtype=torch.float64)))


# --- bounds -----------------------------------------------------------------------------------


def fixed(m: int, n: int, bits: int) -> Fixed:
    return Fixed(torch.zeros(1, 1, dtype=torch.float64).expand(m, n), 1.0, bits)


@pytest.mark.parametrize("bits", [(30, 23), (50, 3), (31, 31), (50, 50)])
def test_operands_too_fine_for_one_exact_product_are_refused(bits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="exact"):
        exact.product(fixed(2, 1, bits[0]), fixed(1, 2, bits[1]))


def test_sums_that_could_pass_63_bits_are_refused() -> None:
    for k in (2**12 - 1, 2**12):
        a, b = fixed(1, k, 25), fixed(k, 1, 26)
        if k * 2**51 < 2**63:
            assert not exact.product(a, b).any()
        else:
            with pytest.raises(ValueError, match="63 bits"):
                exact.product(a, b)


@pytest.mark.parametrize("dim", [-1, -2])
def test_totals_that_could_be_inexact_are_refused(dim: int) -> None:
    assert not exact.total(fixed(2**12, 2**12, 40), dim).any()
    with pytest.raises(ValueError, match="52 bits"):
        exact.total(fixed(2**12 + 1, 2**12 + 1, 40), dim)


def test_a_mean_of_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="exact"):
        exact.mean(torch.zeros(2**22 + 1, dtype=torch.float64))


def test_grids_finer_than_the_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"23 bits is too fine for torch\.float32: at most 22"):
        exact.quantise(torch.ones(1, 1, dtype=torch.float32), 23)
    with pytest.raises(ValueError, match="51 bits"):
        exact.quantise(torch.ones(1, 1, dtype=torch.float64), 51)
    with pytest.raises(ValueError, match="uint8"):
        exact.pixels(torch.ones(1, 1))


def test_a_grid_that_changes_along_the_sum_is_refused() -> None:
    x = random_floats(3, 3)
    by_row = exact.quantise(x, 14, exact.magnitude(x, by_row=True))
    plain = exact.quantise(x, 14)
    assert exact.product(by_row, plain).shape == (3, 3)
    with pytest.raises(ValueError, match="one grid"):
        exact.product(plain, by_row)
    with pytest.raises(ValueError, match="one grid"):
        exact.product(by_row.mT, plain)


def test_bounds_hold_without_asserts(tmp_path: Path) -> None:
    script = """
import torch
from refashion.portable import exact, softmax
from refashion.training import digest
one = torch.ones(1, 1, dtype=torch.float64)
long = exact.Fixed(one.expand(1, 2**13), 1.0, 26)
for refused in (
    lambda: exact.quantise(one, 51),
    lambda: exact.pixels(one),
    lambda: exact.product(long, long.mT),
    lambda: exact.product(exact.Fixed(one, one.expand(1, 2), 2), exact.quantise(one, 2)),
    lambda: exact.total(exact.Fixed(one.expand(1, 2**13), 1.0, 40), -1),
    lambda: softmax.softmax(one.expand(1, 4097)),
    lambda: digest.weights({"w": one}),
):
    try:
        refused()
    except ValueError:
        continue
    raise SystemExit("taken")
"""
    run = subprocess.run([sys.executable, "-O", "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_finite_result_from_what_is_not(poison: float, dtype: torch.dtype, way: str) -> None:
    x = random_floats(6, 6, dtype=dtype)
    good, bad = exact.quantise(x, 14), x.clone()
    bad[2, 3] = poison
    whole_grid = exact.quantise(bad, 14)
    images = exact.pixels(random_pixels(6, 6))
    with going(way):
        for a, b in ((whole_grid, good), (good, whole_grid), (images, whole_grid)):
            assert not torch.isfinite(exact.product(a, b)).any()
        by_row = exact.quantise(bad, 14, exact.magnitude(bad, by_row=True))
        rows = torch.isfinite(exact.product(by_row, good))
    assert rows.all(1).tolist() == [True, True, False, True, True, True]
    assert not rows[2].any()
    for dim in (-1, -2):
        assert not torch.isfinite(exact.total(whole_grid, dim)).any()
    assert not np.isfinite(exact.mean(bad.flatten().to(torch.float64)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_magnitudes(dtype: torch.dtype) -> None:
    x = torch.tensor([[1.0, -3.0], [2.0, 0.5]], dtype=dtype)
    assert exact.magnitude(x) == 3 and exact.magnitude(-x) == 3
    assert exact.magnitude(x, by_row=True).tolist() == [[3], [2]]
    assert exact.magnitude(torch.stack([x, 2 * x])).tolist() == [[[3]], [[6]]]
    x[0, 0] = torch.nan
    assert math.isnan(exact.magnitude(x))
    assert exact.magnitude(x, by_row=True).isnan().tolist() == [[True], [False]]
