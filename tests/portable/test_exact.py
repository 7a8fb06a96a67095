"""Products and sums against Python's integers, both ways, at the edges of every bound."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from matrices import integers, pixels, random_floats, random_pixels, same_bits, true_product
from refashion.portable import exact, multiply
from refashion.portable.exact import Fixed

WAYS = ("float64", "int8")
SHAPES = [(1, 1, 1), (1, 5, 3), (3, 1, 5), (7, 1, 1), (2, 784, 3), (7, 33, 9), (5, 255, 10)]
BITS = [
    *((14, 22), (22, 14), (14, 14), (22, 22), (2, 3), (26, 26), (7, 31)),
    *((30, 21), (22, 30), (31, 21), (2, 50), (50, 2)),
]


def huge_among_tiny(m: int, n: int) -> Tensor:
    x = random_floats(m, n) * 1e-6
    x[m // 2, n // 2] = 1e6
    return x


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


@pytest.mark.parametrize("tiny", [0.0, -0.0, 5e-324, 2.0**-1022, 1e-200])
def test_quantise_rounds_tiny_numbers_to_zero(tiny: float) -> None:
    fixed = exact.quantise(torch.full((3, 2), tiny, dtype=torch.float64), 22)
    assert not fixed.integers.any() and 0 < fixed.scale < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_have_grids_of_their_own(dtype: torch.dtype) -> None:
    """No row's integers depend on its neighbours, and the arguments stay as they are."""
    x = random_floats(8, 6, dtype=dtype) * 10.0 ** torch.arange(-4, 4, dtype=dtype)[:, None]
    largest = exact.magnitude(x, by_row=True)
    copies = x.clone(), largest.clone()
    fixed = exact.quantise(x, 20, largest)
    assert torch.equal(x, copies[0]) and torch.equal(largest, copies[1])
    for i in range(len(x)):
        alone = exact.quantise(x[i : i + 1], 20)
        assert torch.equal(fixed.integers[i : i + 1], alone.integers)
        assert fixed.scale[i, 0] == alone.scale
    assert torch.equal(fixed.mT.integers * fixed.mT.scale, (fixed.integers * fixed.scale).mT)


# --- products ---------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_every_shape_and_number_of_bits(shape: tuple[int, int, int], way: str) -> None:
    """The mathematical integer, times scales and factor multiplied in once."""
    m, k, n = shape
    black, white = torch.zeros(m, k).byte(), torch.full((m, k), 255).byte()
    images = [exact.pixels(x) for x in (random_pixels(m, k), black, white)]
    pairs = [*zip(KINDS, KINDS, strict=True), *itertools.pairwise(KINDS)]
    operands = [
        *((x, exact.quantise(KINDS[kind](k, n), bits))
          for x, kind, bits in itertools.product(images, KINDS, (22, 36))),
        *((exact.quantise(KINDS[left](m, k), bits[0]), exact.quantise(KINDS[right](k, n), bits[1]))
          for bits, (left, right) in itertools.product(BITS, pairs)
          if k < 100 or sum(bits) < 51),
    ]  # fmt: skip
    factors = itertools.cycle([1.0, 1 / 255, 1e-3, -7.0])
    with multiply.products(way):
        for (x, y), factor in zip(operands, factors, strict=False):
            want = true_product(x, y, factor)
            for a, b in itertools.product(layouts(x), layouts(y)):
                assert same_bits(exact.product(a, b, factor), want), (a, b)
            assert same_bits(exact.product(y.mT, x.mT, factor), want.mT), (x, y)


def layouts(x: Fixed) -> tuple[Fixed, Fixed]:
    """Stored by row and by column."""
    return x, Fixed(x.integers.mT.contiguous().mT, x.scale, x.bits)


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
    with multiply.products(way):
        got = exact.product(a, Fixed(b, 1.0, 22))
    assert np.array_equal(got.numpy(), want.astype(np.float64))


# --- properties -------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 2**32),
    way=st.sampled_from(WAYS),
    cuts=st.lists(st.integers(0, 30), max_size=4).map(sorted),
    bits=st.sampled_from([(14, 14), (22, 22), (22, 30), (8, 22), (8, 44)]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_shards_of_a_batch_add_up_to_the_whole(
    seed: int, way: str, cuts: list[int], bits: tuple[int, int], dtype: torch.dtype
) -> None:
    """With the common magnitude, whoever computes which rows, or none, of the batch."""
    x, error = random_pixels(30, 12, seed=seed), random_floats(30, 5, seed=seed)
    shards = [slice(i, j) for i, j in zip([0, *cuts], [*cuts, 30], strict=True)]
    left = exact.pixels(x) if bits[0] == 8 else exact.quantise(x.double(), bits[0])
    right = exact.quantise(error, bits[1])

    def added(parts: list[exact.Sums]) -> exact.Sums:
        integers = torch.stack([part.integers.to(torch.int64) for part in parts]).sum(0)
        assert int(integers.abs().max()) <= parts[0].bound
        return exact.Sums(integers, parts[0].scale, parts[0].bound)

    def part(x: Fixed, rows: slice) -> Fixed:
        return Fixed(x.integers[rows], x.scale, x.bits)

    with multiply.products(way):
        products = [
            exact.product_sums(part(left, rows).mT, part(right, rows), 30) for rows in shards
        ]
        want = exact.product(left.mT, right, 0.3, dtype)
    assert torch.equal(added(products).rounded(0.3, dtype), want)
    totals = [exact.total_sums(part(right, rows), -2, 30) for rows in shards]
    assert same_bits(added(totals).rounded(0.3)[0], exact.total(right, -2, 0.3))


def test_long_batched_products_are_summed_in_pieces_too() -> None:
    h, w = random_floats(2, 3, 600), random_floats(2, 600, 4)  # 2**8 terms of 44 bits are exact
    products = exact.product(exact.quantise(h, 22), exact.quantise(w, 22))
    for i, product in enumerate(products):
        assert same_bits(product, true_product(exact.quantise(h[i], 22), exact.quantise(w[i], 22)))


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
    want = np.frompyfunc(float, 1, 1)(integers(fixed).sum(axis=dim)).astype(np.float64)
    assert same_bits(exact.total(fixed, dim), torch.from_numpy(want) * fixed.scale)


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("n", [1, 4, 5, 8, 9, 100, 1023])
def test_totals_of_float32_are_exact_where_float32_is_not(n: int, dim: int) -> None:
    """Odd numbers of 22 bits: five of them are more than float32 holds."""
    odd = torch.full((n, n), 2.0**22 - 1, dtype=torch.float32)
    assert exact.total(Fixed(odd, 1.0, 22), dim).tolist() == [n * (2**22 - 1)] * n


def test_mean_of_more_numbers_than_one_sum_holds_exactly() -> None:
    few = torch.rand(2**22, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.3
    many = torch.cat([few, few.flip(0), few[::2], few[1::2]])
    assert exact.mean(many) == exact.mean(few)


@pytest.mark.parametrize("n", [1, 2, 1000, 100_000])
def test_mean_is_near_the_true_mean(n: int) -> None:
    values = random_floats(n).abs()
    assert exact.mean(values) == pytest.approx(float(values.mean()), rel=1e-7)
    assert math.isnan(exact.mean(values[:0]))


# --- bounds -----------------------------------------------------------------------------------


def zeros(m: int, n: int, bits: int) -> Fixed:
    return Fixed(torch.zeros(1, 1, dtype=torch.float64).expand(m, n), 1.0, bits)


ONE = torch.ones(1, 1, dtype=torch.float64)
BY_ROW = exact.quantise(random_floats(3, 3), 14, exact.magnitude(random_floats(3, 3), by_row=True))
REFUSED: list[tuple[str, Callable[[], object]]] = [
    ("53 bits", lambda: exact.product(zeros(2, 1, 30), zeros(1, 2, 23))),
    ("53 bits", lambda: exact.product(zeros(2, 1, 50), zeros(1, 2, 3))),
    ("100 bits", lambda: exact.product(zeros(2, 1, 50), zeros(1, 2, 50))),
    ("63 bits", lambda: exact.product(zeros(1, 2**12, 25), zeros(2**12, 1, 26))),
    ("52 bits", lambda: exact.total(zeros(2, 2**12 + 1, 40), -1)),
    ("52 bits", lambda: exact.total(zeros(2**12 + 1, 2, 40), -2)),
    ("63 bits", lambda: exact.product_sums(zeros(1, 1, 25), zeros(1, 1, 26), 2**12)),
    ("52 bits", lambda: exact.total_sums(zeros(1, 1, 40), -2, 2**12 + 1)),
    ("51 bits", lambda: exact.quantise(ONE, 51)),
    ("23 bits is too fine for torch.float32", lambda: exact.quantise(ONE.float(), 23)),
    ("uint8", lambda: exact.pixels(ONE)),
    ("one grid", lambda: exact.product(zeros(3, 3, 14), BY_ROW)),
    ("one grid", lambda: exact.product(BY_ROW.mT, zeros(3, 3, 14))),
]


@pytest.mark.parametrize(("message", "call"), REFUSED)
def test_what_could_be_inexact_is_refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_just_exact_is_not_refused() -> None:
    assert not exact.product(zeros(1, 2**12 - 1, 25), zeros(2**12 - 1, 1, 26)).any()
    for dim in (-1, -2):
        assert not exact.total(zeros(2**12, 2**12, 40), dim).any()
    assert exact.product(BY_ROW, zeros(3, 3, 14)).shape == (3, 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_finite_result_from_what_is_not(poison: float, dtype: torch.dtype, way: str) -> None:
    x = random_floats(6, 6, dtype=dtype)
    good, bad = exact.quantise(x, 14), x.clone()
    bad[2, 3] = poison
    one_grid = exact.quantise(bad, 14)
    with multiply.products(way):
        for a, b in ((one_grid, good), (good, one_grid), (pixels(6, 6), one_grid)):
            assert not torch.isfinite(exact.product(a, b)).any()
        by_row = exact.quantise(bad, 14, exact.magnitude(bad, by_row=True))
        rows = torch.isfinite(exact.product(by_row, good))
    assert rows.all(1).tolist() == [True, True, False, True, True, True]
    assert not rows[2].any()
    for dim in (-1, -2):
        assert not torch.isfinite(exact.total(one_grid, dim)).any()
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
