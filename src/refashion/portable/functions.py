"""Elementary functions from operations that IEEE-754 rounds correctly, one at a time.

Add, subtract, multiply, divide tensor by tensor, compare, round to even, integer and bit
operations: each gives the same bits on every processor and GPU. The library's own ``exp``, ``log``
and ``sqrt`` do not. Arguments and results are float64; subnormal numbers are avoided, since some
processes flush them to zero.
"""

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor

EXPONENT_BIAS = 1023
MANTISSA_BITS = 52
TABLE_BITS = 6


def _split(value: Decimal, bits: int) -> tuple[float, float]:
    """`value` as the sum of two floats, the first of at most `bits` significant bits."""
    fraction = Fraction(value)
    unit = Fraction(2) ** (math.frexp(float(fraction))[1] - bits)
    high = round(fraction / unit) * unit
    return float(high), float(fraction - high)


with localcontext() as context:
    context.prec = 60
    _LN2 = Decimal(2).ln()
    LN2_HIGH, LN2_LOW = _split(_LN2, 32)
    STEP_HIGH, STEP_LOW = _split(_LN2 / 2**TABLE_BITS, 32)
    STEPS_PER_UNIT = float(2**TABLE_BITS / _LN2)
    _POWERS = [_split(Decimal(2) ** (Decimal(j) / 2**TABLE_BITS), 53) for j in range(2**TABLE_BITS)]

LN2 = float(_LN2)
EXP_COEFFICIENTS = [float(Fraction(1, math.factorial(n))) for n in range(2, 7)]
LOG_COEFFICIENTS = [float(Fraction(2, 2 * n + 1)) for n in range(1, 13)]
EXP_UNDERFLOW, EXP_OVERFLOW = -708.0, 709.0


@cache
def _powers(device: torch.device) -> tuple[Tensor, Tensor]:
    """2**(j / 64) for j = 0..63, as a rounded and a remaining part."""
    high, low = zip(*_POWERS, strict=True)
    return (
        torch.tensor(high, dtype=torch.float64, device=device),
        torch.tensor(low, dtype=torch.float64, device=device),
    )


def _horner(x: Tensor, coefficients: list[float]) -> Tensor:
    """``c[0] + x * (c[1] + x * (c[2] + ...))``."""
    total = x * coefficients[-1]
    for c in reversed(coefficients[1:-1]):
        total.add_(c).mul_(x)
    return total.add_(coefficients[0])


def power_of_two(exponent: Tensor) -> Tensor:
    """``2.0 ** exponent``, made from its bits.

    Parameters
    ----------
    exponent
        int64, in [-1022, 1023].
    """
    return (exponent + EXPONENT_BIAS).bitwise_left_shift_(MANTISSA_BITS).view(torch.float64)


def exp(x: Tensor) -> Tensor:
    """Exponential function, within 1 ulp on [-708, 709]; below 0, above infinity."""
    result = exp_in_range(x.clamp(EXP_UNDERFLOW, EXP_OVERFLOW))
    return result.masked_fill_(x < EXP_UNDERFLOW, 0.0).masked_fill_(x > EXP_OVERFLOW, math.inf)


def exp_in_range(x: Tensor) -> Tensor:
    """Exponential function of numbers in [-708, 709], or NaN.

    ``exp(x) = 2**m * 2**(j/64) * exp(r)`` with ``k = 64 m + j = round(64 x / ln 2)`` and
    ``|r| <= ln(2) / 128`` (Tang, "Table-driven implementation of the exponential function in IEEE
    floating-point arithmetic", 1989). ``k`` has at most 17 bits and ``STEP_HIGH`` 32, so their
    product is exact.
    """
    k = (x * STEPS_PER_UNIT).round_()
    r = (x - k * STEP_HIGH).sub_(k * STEP_LOW)
    tail = _horner(r, EXP_COEFFICIENTS).mul_(r).mul_(r).add_(r)
    k = k.to(torch.int64)
    high, low = _powers(x.device)
    j = (k & (2**TABLE_BITS - 1)).flatten()
    power = high.index_select(0, j).view_as(x)
    result = tail.mul_(power).add_(low.index_select(0, j).view_as(x)).add_(power)
    return result.mul_(power_of_two(k.bitwise_right_shift_(TABLE_BITS)))


def log(x: Tensor) -> Tensor:
    """Natural logarithm of positive normal numbers, within 1 ulp.

    ``x = 2**e * m`` with ``m`` in [0.70, 1.41], ``log(m) = 2 atanh(s)``, ``s = (m - 1)/(m + 1)``.
    ``2 atanh(s) = f - (f*f/2 - s * (f*f/2 + R))`` with ``f = m - 1`` keeps the rounding error in
    the small terms. Not a positive normal number: NaN.
    """
    pattern = x.view(torch.int64)
    half = 0x3FE6A09E00000000  # bits of about sqrt(1/2), where the mantissa starts
    exponent = (pattern - half) >> MANTISSA_BITS
    mantissa = (pattern - (exponent << MANTISSA_BITS)).view(torch.float64)
    e = exponent.to(torch.float64)
    f = mantissa - 1.0
    s = f / (f + 2.0)
    square = s * s
    series = _horner(square, LOG_COEFFICIENTS).mul_(square)
    half_square = f * f * 0.5
    small = (half_square + series).mul_(s).add_(e * LN2_LOW)
    result = e * LN2_HIGH - ((half_square - small) - f)
    valid = (x >= torch.finfo(torch.float64).tiny) & (x < math.inf)
    return result.masked_fill_(~valid, math.nan)


def sqrt(x: Tensor) -> Tensor:
    """Square root of zero and positive normal numbers, within 1 ulp.

    Newton's iteration for ``1 / sqrt(x)`` from a guess made of the halved exponent, then one
    correction of the root itself. Negative numbers: NaN.
    """
    root = (0x5FE6EB50C7B537A9 - (x.view(torch.int64) >> 1)).view(torch.float64)
    half = x * 0.5
    for _ in range(5):
        root.mul_((half * root).mul_(root).neg_().add_(1.5))
    guess = x * root
    result = guess + (x - guess * guess) * (root * 0.5)
    return result.masked_fill_(x == 0, 0.0).masked_fill_(x < 0, math.nan)


# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", 1988: rational
# approximations (numerator, denominator) around the middle, in the flanks and in the tails.
_MIDDLE = (
    [3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
     1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
     3.3430575583588128105e4, 2.5090809287301226727e3],
    [1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
     5.2264952788528545610e3],
)  # fmt: skip
_FLANK = (
    [1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
     3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
     2.27238449892691845833e-2, 7.74545014278341407640e-4],
    [1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9],
)  # fmt: skip
_TAIL = (
    [6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7],
    [1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15],
)  # fmt: skip


def normal_quantile(p: Tensor) -> Tensor:
    """Inverse of the standard normal distribution function, relative error about 1e-15.

    Parameters
    ----------
    p
        Probabilities in (0, 1), float64.
    """
    q = p - 0.5
    tail = torch.minimum(p, 1.0 - p)
    r = sqrt(-log(tail))
    near, far = r - 1.6, r - 5.0
    outer = torch.where(
        r <= 5.0,
        _horner(near, _FLANK[0]) / _horner(near, _FLANK[1]),
        _horner(far, _TAIL[0]) / _horner(far, _TAIL[1]),
    )
    middle = 0.180625 - q * q
    inner = q * (_horner(middle, _MIDDLE[0]) / _horner(middle, _MIDDLE[1]))
    return torch.where(q.abs() <= 0.425, inner, torch.where(q < 0, -outer, outer))
