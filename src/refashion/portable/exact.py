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
    accumulation for all pairs of digits, put together in int32 or float64. Faster where the
    processor has int8 dot products.

Error-free splitting for products on stock BLAS: Ozaki, Ogita, Oishi and Rump, "Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication and its
applications", 2012; on int8 units: Ootomo, Ozaki and Yokota, "DGEMM on integer matrix
multiplication unit", 2024.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

EXACT_FLOAT32 = 24  # bits
EXACT_FLOAT64 = 52  # bits; 53 are exact, one is spared for the sum of the digits' magnitudes
EXACT_INT8_TERMS = 2**16  # 2**16 * 128 * 128 = 2**30 < 2**31
NARROW = 64  # columns below which digits lie by column: one product instead of several
PIXEL_MIDDLE = 128  # what is taken off pixels to make them int8
SMALLEST_EXPONENT = -100  # no grid is finer than that of a matrix whose maximum is 2**-100
SMALLEST_FLOAT32 = 2.0**-100  # of a grid: smaller ones would reach the subnormal numbers
DIGIT_LIMIT = 30  # bits of magnitude that digits are split from, in int32
WORTH_DIGITS = 2**23  # multiplications below which splitting costs more than it saves
WORTH_TERMS = 64  # in a sum, likewise


@dataclass(slots=True)
class Fixed:
    """A matrix on a grid, or a batch of them: ``integers * scale``."""

    integers: Tensor
    """Whole numbers [..., m, n], float32 or float64; or uint8 for raw pixels."""

    scale: float | Tensor
    """A power of two; or one for every matrix [..., 1, 1] or row [..., m, 1], float64."""

    bits: int
    """No magnitude exceeds ``2**bits``."""

    known_digits: Tensor | None = None
    """Once they have been asked for."""

    @property
    def mT(self) -> "Fixed":
        """Every matrix transposed, and with it a grid that differs by row."""
        scale = self.scale if isinstance(self.scale, float) else self.scale.mT
        digits = None if self.known_digits is None else self.known_digits.mT
        return Fixed(self.integers.mT, scale, self.bits, digits)

    @property
    def value(self) -> Tensor:
        """The numbers themselves, float64; exact."""
        return self.integers.to(torch.float64) * self.scale

    def digits(self) -> Tensor:
        """Balanced base-256 digits, -128 to 127, lowest first: int8 [d, m, n].

        ``x = sum 256**i d_i`` with d digits as long as ``bits <= 8 d - 2``; pixels are 128 more
        than their one digit. Each digit lies in memory as the matrix does, so that transposing
        costs nothing.
        """
        if self.known_digits is None:
            self.known_digits = _split(self.integers, len(_digit_bounds(self)))
        return self.known_digits


def pixels(images: Tensor) -> Fixed:
    """Raw pixels as they are: uint8, 0 to 255, on the grid of whole numbers."""
    assert images.dtype == torch.uint8
    return Fixed(images, 1.0, 8)


def magnitude(x: Tensor, *, by_row: bool = False) -> float | Tensor:
    """Largest absolute value of every matrix, or of every row; a maximum has no order.

    Returns
    -------
    float or Tensor
        NaN where a number is NaN: one number for one matrix; float64 [..., 1, 1] for a batch of
        matrices, [..., m, 1] by row.
    """
    if by_row:
        return x.abs().amax(dim=-1, keepdim=True).to(torch.float64)
    if x.dim() > 2:
        return x.abs().amax(dim=(-2, -1), keepdim=True).to(torch.float64)
    smallest, largest = torch.aminmax(x)
    return max(-smallest.item(), largest.item())


def quantise(x: Tensor, bits: int, largest: float | Tensor | None = None) -> Fixed:
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
    if isinstance(largest, float):
        scale = _grid(largest, bits)
        return Fixed((x * (1 / scale)).round_(), scale, bits)
    scales = _grids(largest, bits)
    return Fixed((x * scales.reciprocal().to(x.dtype)).round_(), scales, bits)


def _grid(largest: float, bits: int) -> float:
    if not math.isfinite(largest):
        return math.nan
    e = math.frexp(largest)[1] if largest else SMALLEST_EXPONENT
    return math.ldexp(1.0, max(e, SMALLEST_EXPONENT) - bits)


def _grids(largest: Tensor, bits: int) -> Tensor:
    field = largest.view(torch.int64).bitwise_right_shift(52)  # e + 1022; 2047: not finite
    field.clamp_(min=1022 + SMALLEST_EXPONENT)
    scales = (field + (1 - bits)).bitwise_left_shift_(52).view(torch.float64)
    return scales.add_(largest * 0.0)  # NaN, if the largest magnitude is not finite


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
    assert isinstance(a.scale, float) or a.scale.shape[-1] == 1  # one grid along the sum
    assert isinstance(b.scale, float) or b.scale.shape[-2] == 1
    k = a.integers.shape[-1]
    bits = a.bits + b.bits
    if bits > EXACT_FLOAT64 or k * 2**bits >= 2**63:
        raise ValueError(f"an exact sum of {k} products of {bits} bits does not fit 63 bits")
    multiply = _multiplier(a, b)
    terms = 2 ** (EXACT_FLOAT64 - bits)
    if multiply is _int8:
        terms = min(terms, EXACT_INT8_TERMS)
    if k <= terms:
        sums = multiply(a, b)
    else:
        pieces = zip(a.integers.split(terms, -1), b.integers.split(terms, -2), strict=True)
        exact = [
            multiply(Fixed(x, a.scale, a.bits), Fixed(y, b.scale, b.bits)).to(torch.int64)
            for x, y in pieces
        ]
        sums = torch.stack(exact).sum(0).to(torch.float64)
    scale = a.scale * b.scale * factor
    if isinstance(scale, float):
        tiny = dtype == torch.float32 and abs(scale) < SMALLEST_FLOAT32
        return sums.to(dtype).mul_(0.0 if tiny else scale)
    if dtype == torch.float32:
        scale = scale.masked_fill(scale.abs() < SMALLEST_FLOAT32, 0.0)
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
    return (_sums(x, dim).to(torch.float64) * x.scale).squeeze(dim)


def _sums(x: Fixed, dim: int) -> Tensor:
    """Sums of the whole numbers, `dim` kept, in the narrowest type that holds them exactly."""
    largest = x.integers.shape[dim] * 2**x.bits
    narrow = x.integers.dtype == torch.float32 and largest <= 2**EXACT_FLOAT32
    return x.integers.sum(dim, keepdim=True, dtype=torch.float32 if narrow else torch.float64)


def mean(values: Tensor) -> float:
    """Mean of a vector of any finite float64 numbers, on a grid of 30 bits; NaN of none.

    Exact sum for up to 2**22 numbers.
    """
    if not len(values):
        return float("nan")
    return float(total(quantise(values[None], 30), -1)[0]) / len(values)


Multiplier = Callable[[Fixed, Fixed], Tensor]
"""From two matrices to the exact product of their whole numbers, in any dtype."""


def _float64(a: Fixed, b: Fixed) -> Tensor:
    """One product in float64."""
    return a.integers.to(torch.float64) @ b.integers.to(torch.float64)


def _int8(a: Fixed, b: Fixed) -> Tensor:
    """Products of all pairs of digits, ``sum 256**(i+j) a_i @ b_j``."""
    (m, k), n = a.integers.shape, b.integers.shape[1]
    left_digits, right_digits = a.digits(), b.digits().mT  # split before they are transposed
    if n < NARROW <= m:  # long rows are added faster than short ones
        return _int8(b.mT, a.mT).mT
    rows, columns = _digit_bounds(a), _digit_bounds(b)
    parts = []
    for i, left in _operands(left_digits):
        for j, right in _operands(right_digits):
            products = torch._int_mm(left, right.mT)
            products = products.view(len(left) // m, m, len(right) // n, n)
            parts += [
                (i + p + j + q, products[p, :, q], k * rows[i + p] * columns[j + q])
                for p in range(len(left) // m)
                for q in range(len(right) // n)
            ]
    total = _combine(parts)
    # What was taken off the pixels comes back as so many times the other's sums.
    if a.integers.dtype == torch.uint8:
        sums = _sums(b, -2)
    elif b.integers.dtype == torch.uint8:
        sums = _sums(a, -1)
    else:
        return total
    if k * 2 ** (a.bits + b.bits) >= 2**31:
        total = total.to(torch.float64)
    return total.add_(sums.mul_(PIXEL_MIDDLE).to(total.dtype))


def _operands(digits: Tensor) -> list[tuple[int, Tensor]]:
    """The digits [d, m, k] one below the other, where they lie so, else one by one."""
    if digits.stride(0) == digits.shape[1] * digits.stride(1):
        return [(0, digits.flatten(0, 1))]
    return list(enumerate(digits))


def _combine(parts: list[tuple[int, Tensor, int]]) -> Tensor:
    """``sum 256**power * part`` of parts given with their powers and bounds of their magnitude.

    By Horner's rule; int32 as long as the bounds allow, which halves the memory that is moved,
    float64, below 2**52, beyond: nothing is rounded, fused or not.
    """
    parts = sorted(parts, key=lambda part: -part[0])
    power, total, bound = parts[0]
    pieces = []
    for p, part, b in parts[1:]:
        factor = 256 ** (power - p)
        if bound * factor + b < 2**31:
            total = part.add_(total, alpha=factor)
            bound = bound * factor + b
        else:
            pieces.append((power, total))
            total, bound = part, b
        power = p
    if not pieces:
        return total
    pieces.append((power, total))
    power, wide = pieces[0][0], pieces[0][1].to(torch.float64)
    for p, piece in pieces[1:]:
        wide = piece.to(torch.float64).add_(wide, alpha=256.0 ** (power - p))
        power = p
    return wide


def _digit_bounds(x: Fixed) -> list[int]:
    """Largest magnitude of each of the matrix's digits, lowest digit first."""
    if x.integers.dtype == torch.uint8:
        return [PIXEL_MIDDLE]
    count = -(-(x.bits + 2) // 8)
    return [128] * (count - 1) + [2 ** max(0, x.bits - 8 * (count - 1))]


def _split(x: Tensor, count: int) -> Tensor:
    """See `Fixed.digits`."""
    if x.dtype == torch.uint8:
        return x.bitwise_xor(PIXEL_MIDDLE).view(torch.int8)[None]
    rest = x.to(torch.int16 if count <= 2 else torch.int32)
    by_column = x.stride(-1) != 1 or x.shape[1] < NARROW
    if by_column:
        rest = rest.mT.contiguous()
    digits = torch.empty(count, *rest.shape, dtype=torch.int8, device=x.device)
    for i in range(count):
        if i:
            rest.add_(128).bitwise_right_shift_(8)
        digits[i].copy_(rest)  # keeps the low byte, as a signed number
    return digits.mT if by_column else digits


def _multiplier(a: Fixed, b: Fixed) -> Multiplier:
    """The fastest exact way on this device; the bits are the same."""
    m, k, n = a.integers.shape[-2], *b.integers.shape[-2:]
    if a.integers.dim() > 2 or b.integers.dim() > 2 or max(a.bits, b.bits) > DIGIT_LIMIT:
        return _float64
    num_pixels = [x.integers.dtype for x in (a, b)].count(torch.uint8)
    if (
        num_pixels == 2
        or not m * n
        or (not num_pixels and (m * k * n < WORTH_DIGITS or k < WORTH_TERMS))
    ):
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
    b = columns.to(torch.float32) * 2**7
    return _seconds(_int8, a, b) < _seconds(_float64, a, b)


def _seconds(multiply: Multiplier, pixels: Tensor, integers: Tensor) -> float:
    """The least time of some products of pixels and whole numbers of 14 bits."""
    times = []
    for _ in range(16):
        started = time.perf_counter()
        multiply(Fixed(pixels, 1.0, 8), Fixed(integers, 1.0, 14)).sum().item()
        times.append(time.perf_counter() - started)
    return min(times)
