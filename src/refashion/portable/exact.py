"""Products and sums that are exact, hence the same in every order of addition.

A float tensor is rounded once, elementwise, to whole numbers times a power of two (`quantise`). A
sum of products of whole numbers is exact while every partial sum stays below 2**53 in float64, or
below 2**31 in int32; exact addition is associative, so blocking, threads, vector width, fused
multiply-add and device cannot change it. The contract is the *mathematical integer*, and there are
two ways to it:

``float64``
    One float64 matrix product.
``int8``
    Whole numbers split into balanced base-256 digits, one int8 matrix product with int32
    accumulation for all pairs of digits, put together in float64. Several times faster where the
    processor has int8 dot products.

Error-free splitting for products on stock BLAS: Ozaki, Ogita, Oishi and Rump, "Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication and its
applications", 2012; on int8 units: Ootomo, Ozaki and Yokota, "DGEMM on integer matrix
multiplication unit", 2024.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

EXACT_FLOAT64 = 52  # bits; 53 are exact, one is spared for the sum of the digits' magnitudes
EXACT_INT8_TERMS = 2**16  # 2**16 * 128 * 128 = 2**30 < 2**31
ONES = 8  # rows of ones: as many as keep the number of rows a multiple of 8
SMALLEST_EXPONENT = -100  # no grid is finer than that of a matrix whose maximum is 2**-100
SMALLEST_FLOAT32 = 2.0**-100  # of a grid: smaller ones would reach the subnormal numbers
DIGIT_LIMIT = 30  # bits of magnitude that digits are split from, in int32
WORTH_DIGITS = 2**23  # multiplications below which splitting costs more than it saves


@dataclass(frozen=True, slots=True)
class Fixed:
    """A matrix on a grid, or a batch of them: ``integers * scale``."""

    integers: Tensor
    """Whole numbers [..., m, n], float32 or float64; or uint8 for raw pixels."""

    scale: Tensor
    """A power of two, float64: without dimensions, or one for every matrix [..., 1, 1] or row."""

    bits: int
    """No magnitude exceeds ``2**bits``."""

    @property
    def mT(self) -> "Fixed":
        """Every matrix transposed, and with it a grid that differs by row."""
        scale = self.scale.mT if self.scale.dim() else self.scale
        return Fixed(self.integers.mT, scale, self.bits)

    @property
    def value(self) -> Tensor:
        """The numbers themselves, float64; exact."""
        return self.integers.to(torch.float64) * self.scale


def pixels(images: Tensor) -> Fixed:
    """Raw pixels as they are: uint8, 0 to 255, on the grid of whole numbers."""
    assert images.dtype == torch.uint8
    return Fixed(images, torch.ones((), dtype=torch.float64, device=images.device), 8)


def magnitude(x: Tensor, *, by_row: bool = False) -> Tensor:
    """Largest absolute value of every matrix, or of every row; a maximum has no order.

    Returns
    -------
    Tensor
        float64, NaN where a number is NaN: without dimensions for one matrix, [..., 1, 1] for a
        batch of matrices, [..., m, 1] by row.
    """
    if by_row:
        return x.abs().amax(dim=-1, keepdim=True).to(torch.float64)
    if x.dim() > 2:
        return x.abs().amax(dim=(-2, -1), keepdim=True).to(torch.float64)
    smallest, largest = torch.aminmax(x)
    return torch.maximum(-smallest, largest).to(torch.float64)


def quantise(x: Tensor, bits: int, largest: Tensor | None = None) -> Fixed:
    """Round every matrix to the grid on which its largest magnitude takes `bits` bits.

    With ``2**(e-1) <= largest < 2**e`` the grid is ``2**(e - bits)``, so ``|integer| <= 2**bits``
    by construction.

    Parameters
    ----------
    x
        float32 or float64 [..., m, n].
    bits
        Bits of magnitude: at most 22 for float32, 50 for float64.
    largest
        `magnitude` of the whole, where `x` is only a part of it (a shard of a batch), or by row,
        where every row is to have its own grid. If it is not finite, so is no result.
    """
    assert bits <= (22 if x.dtype == torch.float32 else 50)
    if largest is None:
        largest = magnitude(x)
    field = largest.view(torch.int64).bitwise_right_shift(52)  # e + 1022; 2047: not finite
    field.clamp_(min=1022 + SMALLEST_EXPONENT)
    scale = (field + (1 - bits)).bitwise_left_shift_(52).view(torch.float64)
    scale.add_(largest * 0.0)  # NaN, if the largest magnitude is not finite
    inverse = scale.reciprocal()  # exact: a power of two
    if inverse.dim():
        inverse = inverse.to(x.dtype)  # a tensor with dimensions would promote float32
    return Fixed((x * inverse).round_(), scale, bits)


def product(a: Fixed, b: Fixed, factor: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Matrix product: exact, rounded to `dtype`, then times the scales and `factor`.

    Exact because ``|sum| <= k * 2**(a.bits + b.bits)``; a longer inner dimension `k` than keeps
    this below 2**52 is summed in pieces, whose int64 total is exact below 2**63 and rounded once
    to float64.

    Parameters
    ----------
    a, b
        [..., m, k] and [..., k, n].
    factor
        Multiplied in at the end, in one multiplication with both scales.
    dtype
        float64; or float32, where grids below 2**-100 count as zero.

    Returns
    -------
    Tensor
        [..., m, n].

    Raises
    ------
    ValueError
        If one product could reach 2**52, or the total 2**63.
    """
    assert a.scale.dim() == 0 or a.scale.shape[-1] == 1  # one grid along the sum
    assert b.scale.dim() == 0 or b.scale.shape[-2] == 1
    k = a.integers.shape[-1]
    bits = a.bits + b.bits
    if bits > EXACT_FLOAT64 or k * 2**bits >= 2**63:
        raise ValueError(f"an exact sum of {k} products of {bits} bits does not fit 63 bits")
    multiply = _multiplier(a, b)
    terms = 2 ** (EXACT_FLOAT64 - bits)
    if multiply is _int8:
        terms = min(terms, EXACT_INT8_TERMS)
    if k <= terms:
        sums = multiply(a.integers, b.integers, a.bits, b.bits)
    else:
        pieces = zip(a.integers.split(terms, -1), b.integers.split(terms, -2), strict=True)
        exact = [multiply(x, y, a.bits, b.bits).to(torch.int64) for x, y in pieces]
        sums = torch.stack(exact).sum(0).to(torch.float64)
    scale = a.scale * b.scale * factor
    if dtype == torch.float32:
        scale = scale.masked_fill(scale < SMALLEST_FLOAT32, 0.0)
    return sums.to(dtype).mul_(scale.to(dtype))


def total(x: Fixed, dim: int) -> Tensor:
    """Sum over the rows (`dim` -2) or columns (-1): exact while ``n * 2**x.bits < 2**52``.

    Returns
    -------
    Tensor
        float64.

    Raises
    ------
    ValueError
        If the sum could be inexact.
    """
    n = x.integers.shape[dim]
    if n * 2**x.bits > 2**EXACT_FLOAT64:
        raise ValueError(f"an exact sum of {n} numbers of {x.bits} bits does not fit 52 bits")
    sums = x.integers.sum(dim, dtype=torch.float64)
    return sums.mul_(x.scale if x.scale.dim() == 0 else x.scale.squeeze(dim))


def mean(values: Tensor) -> float:
    """Mean of a vector of any finite float64 numbers, on a grid of 30 bits; NaN of none.

    Exact sum for up to 2**22 numbers.
    """
    if not len(values):
        return float("nan")
    return float(total(quantise(values[None], 30), -1)[0]) / len(values)


Multiplier = Callable[[Tensor, Tensor, int, int], Tensor]
"""From two matrices of whole numbers and their bits to the exact product, in any dtype."""


def _float64(a: Tensor, b: Tensor, a_bits: int, b_bits: int) -> Tensor:
    """``a @ b``: one product in float64."""
    return a.to(torch.float64) @ b.to(torch.float64)


def _int8(a: Tensor, b: Tensor, a_bits: int, b_bits: int) -> Tensor:
    """``a @ b``: one product of all pairs of digits, ``sum 256**(i+j) a_i @ b_j``."""
    if a.dtype == torch.uint8:
        return _int8_pixels(a, b, b_bits)
    k = a.shape[1]
    rows, columns = _digit_bounds(a_bits), _digit_bounds(b_bits)
    products = torch._int_mm(_digits(a.mT, a_bits).mT, _digits(b, b_bits))
    products = products.view(len(rows), a.shape[0], len(columns), b.shape[1])
    return _combine(
        [
            (i + j, products[i, :, j], k * rows[i] * columns[j])
            for i in range(len(rows))
            for j in range(len(columns))
        ]
    )


def _int8_pixels(a: Tensor, b: Tensor, b_bits: int) -> Tensor:
    """The same for pixels: one digit, once 128 is taken off; it returns as 128 times b's sums."""
    (m, k), n = a.shape, b.shape[1]
    by_row = a.stride(-1) == 1
    if by_row:  # rows of ones below the pixels give b's sums by the way
        left = torch.ones(m + ONES, k, dtype=torch.int8, device=a.device)
        torch.bitwise_xor(a, 0x80, out=left[:m].view(torch.uint8))
    else:
        left = a.bitwise_xor(0x80).view(torch.int8)
    columns = _digit_bounds(b_bits)
    products = torch._int_mm(left, _digits(b, b_bits)).view(len(left), len(columns), n)
    total = _combine([(j, products[:, j], k * 128 * bound) for j, bound in enumerate(columns)])
    if total.dtype == torch.int32 and k * 2 ** (8 + b_bits) >= 2**31:
        total = total.to(torch.float64)
    if by_row:
        total, sums = total[:m], total[m] * 128
    else:
        sums = b.sum(0, dtype=torch.float64).mul_(128).to(total.dtype)
    return total + sums


def _combine(parts: list[tuple[int, Tensor, int]]) -> Tensor:
    """``sum 256**power * part`` of parts given with their powers and bounds of their magnitude.

    int32 as long as the bounds allow, which halves the memory that is moved; float64, below 2**52,
    beyond: nothing is rounded, fused or not.
    """
    wide: Tensor | None = None
    power, total, bound = max(parts, key=lambda part: part[0])
    for p, part, b in sorted(parts, key=lambda part: -part[0])[1:]:
        factor = 256 ** (power - p)
        if bound * factor + b < 2**31:
            total, power, bound = torch.add(part, total, alpha=factor), p, bound * factor + b
        else:
            high = total.to(torch.float64)
            wide = high.mul_(256.0**power) if wide is None else wide.add_(high, alpha=256.0**power)
            power, total, bound = p, part, b
    if wide is None:
        return total
    return wide.add_(total.to(torch.float64), alpha=256.0**power)


def _digit_bounds(bits: int) -> list[int]:
    """Largest magnitude of each digit of numbers up to ``2**bits``, lowest digit first."""
    count = -(-(bits + 2) // 8)
    return [128] * (count - 1) + [2 ** max(0, bits - 8 * (count - 1))]


def _digits(x: Tensor, bits: int) -> Tensor:
    """Balanced base-256 digits, -128 to 127, lowest first, side by side.

    ``x = sum 256**i d_i`` with d digits as long as ``bits <= 8 d - 2``. Laid out in memory as `x`
    is, so that transposing costs nothing.

    Returns
    -------
    Tensor
        int8 [k, d * n] of [k, n].
    """
    k, n = x.shape
    count = len(_digit_bounds(bits))
    if x.stride(-1) == 1:
        out = torch.empty(k, count, n, dtype=torch.int8, device=x.device)
    else:
        out = torch.empty(count, n, k, dtype=torch.int8, device=x.device).permute(2, 0, 1)
    rest = x.to(torch.int32)
    for i in range(count):
        if i:
            rest.add_(128).bitwise_right_shift_(8)
        out[:, i].copy_(rest)  # keeps the low byte, as a signed number
    return out.flatten(1)


def _multiplier(a: Fixed, b: Fixed) -> Multiplier:
    """The fastest exact way on this device; the bits are the same."""
    m, k, n = a.integers.shape[-2], *b.integers.shape[-2:]
    if a.integers.dim() > 2 or b.integers.dim() > 2 or max(a.bits, b.bits) > DIGIT_LIMIT:
        return _float64
    if a.integers.dtype != torch.uint8 and m * k * n < WORTH_DIGITS:
        return _float64
    if a.integers.is_cuda and (m <= 16 or k % 8 or n % 8):  # what the CUDA kernel asks for
        return _float64
    return _int8 if int8_wins(a.integers.device) else _float64


@cache
def int8_wins(device: torch.device) -> bool:
    """Whether the int8 way is exact on this device, and faster; found out once per process.

    Some processors' int8 kernels saturate their 16-bit intermediate sums, so the probe multiplies
    the extremes; ``torch._int_mm`` is a private function, so its absence counts as a no.
    """
    if not hasattr(torch, "_int_mm"):
        return False
    generator = torch.Generator().manual_seed(0)
    k, n = 784, 264
    rows = torch.randint(-128, 128, (264, k), generator=generator, dtype=torch.int32)
    columns = torch.randint(-128, 128, (k, n), generator=generator, dtype=torch.int32)
    rows[0], rows[1], rows[2, ::2], rows[3, ::2] = -128, 127, 127, -128
    columns[:, 0], columns[:, 1], columns[::2, 2], columns[::2, 3] = -128, 127, 127, -128
    rows, columns = rows.to(device, torch.int8), columns.to(device, torch.int8)
    want = rows.to(torch.float64) @ columns.to(torch.float64)
    want_transposed = columns.mT.to(torch.float64) @ rows.mT.to(torch.float64)
    try:
        exact = torch.equal(torch._int_mm(rows, columns).to(torch.float64), want)
        transposed = torch._int_mm(columns.mT, rows.mT.contiguous()).to(torch.float64)
        exact = exact and torch.equal(transposed, want_transposed)
    except RuntimeError:
        return False
    if not exact:
        return False
    a = rows.bitwise_xor(-128).view(torch.uint8)
    b = columns.to(torch.float32) * 2**14
    return _seconds(_int8, a, b) < _seconds(_float64, a, b)


def _seconds(multiply: Multiplier, a: Tensor, b: Tensor) -> float:
    """The least time of some products of 8 by 22 bits."""
    times = []
    for _ in range(16):
        started = time.perf_counter()
        multiply(a, b, 8, 22).sum().item()
        times.append(time.perf_counter() - started)
    return min(times)
