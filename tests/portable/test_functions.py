"""Elementary functions against many digits, over their whole range."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from refashion.portable import functions

COUNT = 4000


def uniform(low: float, high: float, count: int = COUNT) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, generator=generator, dtype=torch.float64) * (high - low) + low


def any_normal(count: int = COUNT) -> Tensor:
    """Positive normal numbers of every exponent."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(1 << 52, 0x7FF << 52, (count,), generator=generator)
    return patterns.view(torch.float64)


def neighbours(centre: float, count: int = 200) -> Tensor:
    """Floats on both sides of a number."""
    pattern = torch.tensor(centre, dtype=torch.float64).view(torch.int64)
    return (pattern + torch.arange(-count, count)).view(torch.float64)


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def worst_error(
    function: Callable[[Tensor], Tensor], truth: Callable[[mpmath.mpf], mpmath.mpf], x: Tensor
) -> float:
    """Largest distance from the truth, in units of the truth's last place."""
    worst = 0.0
    with mpmath.workdps(50):
        for argument, got in zip(x.tolist(), function(x.clone()).tolist(), strict=True):
            want = truth(mpmath.mpf(argument))
            assert math.isfinite(got), argument
            unit = math.ulp(float(want))
            worst = max(worst, float(abs(mpmath.mpf(got) - want) / unit))
    return worst


SMALLEST, LARGEST = 2.0**-1022, 1.7976931348623157e308
ACCURATE: dict[Callable[[Tensor], Tensor], list[Tensor]] = {
    functions.exp: [
        uniform(-708, 709),
        uniform(-41, 0),  # of a softmax
        uniform(-1, 1),
        uniform(-1e-8, 1e-8, 500),
        torch.arange(-708, 710, dtype=torch.float64),
        # where one step of the table gives way to the next
        (torch.arange(-65000, 65000, 61) + 0.5).to(torch.float64) * (math.log(2) / 64),
        vector(-708.0, 709.0, 1e-300, -1e-300, 5e-324, 2.0**-53, -(2.0**-53)),
    ],
    functions.log: [
        any_normal(),
        uniform(0.5, 2),
        uniform(1, 4096),
        *(neighbours(seam) for seam in (1.0, 2**-0.5, 2**0.5)),
        vector(SMALLEST, LARGEST, 2.0, 0.5, 2.0**52, 10.0),
    ],
    functions.sqrt: [
        any_normal(),
        uniform(1, 4),
        torch.arange(1, 2000, dtype=torch.float64) ** 2,
        *(neighbours(seam) for seam in (1.0, 4.0)),
        vector(SMALLEST, LARGEST, 2.0, 0.5),
    ],
}


@pytest.mark.parametrize("function", ACCURATE)
def test_no_value_is_off_by_more_than_its_last_place(function: Callable[[Tensor], Tensor]) -> None:
    for x in ACCURATE[function]:
        assert worst_error(function, getattr(mpmath, function.__name__), x) <= 1, x


INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("function", "x", "want"),
    [
        (functions.exp, [0.0, -0.0, INF, -INF, NAN, 709.1, -708.1], [1, 1, INF, 0, NAN, INF, 0]),
        (functions.exp, [1e308, -1e308], [INF, 0]),
        (functions.log, [1.0, INF], [0, NAN]),
        (functions.log, [0.0, -0.0, -1.0, -INF, NAN, 2.0**-1023], [NAN] * 6),
        (functions.sqrt, [0.0, -0.0, 1.0, 4.0, -1.0, -INF, NAN], [0, 0, 1, 2, NAN, NAN, NAN]),
    ],
)
def test_edges(function: Callable[[Tensor], Tensor], x: list[float], want: list[float]) -> None:
    assert np.array_equal(function(vector(*x)).numpy(), want, equal_nan=True)


@pytest.mark.parametrize("exponent", [-1022, -1021, -1, 0, 1, 52, 1022, 1023])
def test_powers_of_two(exponent: int) -> None:
    assert functions.power_of_two(torch.tensor(exponent)) == 2.0**exponent


FAR_OUT = torch.from_numpy(10.0 ** -np.arange(1, 300, 1.0))


@pytest.mark.parametrize("p", [uniform(0, 1), uniform(0.07, 0.08), uniform(0, 1e-10), FAR_OUT])
def test_normal_quantile(p: Tensor) -> None:
    want = special.ndtri(p.numpy())
    assert functions.normal_quantile(p).numpy() == pytest.approx(want, rel=1e-14, abs=0)


def test_normal_quantile_is_symmetric() -> None:
    high = 1 - 2.0 ** -torch.arange(2, 54, dtype=torch.float64)
    assert torch.equal(functions.normal_quantile(high), -functions.normal_quantile(1 - high))
    assert functions.normal_quantile(vector(0.5)) == 0


@pytest.mark.parametrize(
    "function", [functions.exp, functions.log, functions.sqrt, functions.normal_quantile]
)
def test_a_value_depends_on_its_argument_alone(function: Callable[[Tensor], Tensor]) -> None:
    """Not on its place in a vector register, on strides, or on the number of dimensions."""
    x = uniform(0.001, 0.999, 1000)
    original, whole = x.clone(), function(x)
    assert torch.equal(x, original)
    for start, stop in ((0, 1), (1, 1000), (3, 10), (997, 1000)):
        assert torch.equal(function(x[start:stop]), whole[start:stop])
    assert torch.equal(function(x.view(20, 50).mT), whole.view(20, 50).mT)
    assert torch.equal(function(x[::7]), whole[::7])
    assert function(x[5]) == whole[5]
    assert function(x[:0]).shape == (0,)
