"""Products and sums that are exact, hence the same in every order of addition.

A float tensor is rounded once, elementwise, to whole numbers times a power of two (`quantise`). A
sum of products of whole numbers is exact while every partial sum stays below 2**53 in float64, or
below 2**31 in int32. Exact addition is associative, so blocking, threads, vector width, fused
multiply-add and device cannot change it. The contract is the *mathematical integer*; how it is
computed is free (`refashion.portable.multiply`).

Error-free splitting for products on stock BLAS: Ozaki, Ogita, Oishi and Rump, "Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication and its
applications", 2012; on int8 units: Ootomo, Ozaki and Yokota, "DGEMM on integer matrix
multiplication unit", 2024.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from refashion.portable.fixed import Fixed as Fixed
from refashion.portable.fixed import magnitude as magnitude
from refashion.portable.fixed import pixels as pixels
from refashion.portable.fixed import quantise as quantise
from refashion.portable.multiply import EXACT_FLOAT64, EXACT_INT8_TERMS, multiply, whole_sums

SMALLEST_FLOAT32 = 2.0**-100  # of a grid: smaller ones would reach the subnormal numbers


@dataclass(slots=True)
class Sums:
    """Exact sums of whole numbers that nothing has rounded yet.

    Sums of parts of the terms (shards of a batch) may be added before they are `rounded`.
    """

    integers: Tensor
    """int32, int64, or whole numbers in float64."""

    scale: float | Tensor
    """By which they are multiplied in the end."""

    bound: int
    """No magnitude exceeds it, once all parts are added."""

    def rounded(self, factor: float | Tensor = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
        """The sums in `dtype`, times scale and `factor`, as for `product`; for use once."""
        sums, scale = self.integers, self.scale * factor
        if sums.dtype == torch.int64:  # rounded to float64 first, as all that is beyond int32
            sums = sums.to(torch.float64)
        if isinstance(scale, float):
            tiny = dtype == torch.float32 and abs(scale) < SMALLEST_FLOAT32
            return sums.to(dtype).mul_(0.0 if tiny else scale)
        if dtype == torch.float32:
            scale = scale.masked_fill(scale.abs() < SMALLEST_FLOAT32, 0.0)
        return sums.to(dtype).mul_(scale.to(dtype))


def product(
    a: Fixed, b: Fixed, factor: float | Tensor = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Matrix product [..., m, n]: exact, rounded to `dtype`, then times the scales and `factor`.

    Exact because ``|sum| <= k * 2**(a.bits + b.bits)``; a longer inner dimension `k` than keeps
    this below 2**52 is summed in pieces, whose int64 total is exact below 2**63 and rounded once
    to float64.

    Parameters
    ----------
    a, b
        [..., m, k] and [..., k, n]; `a` may be one matrix for all of `b`, which are then multiplied
        as one wide matrix.
    factor
        Multiplied in at the end, in one multiplication with both scales; or one for every matrix,
        float64 [..., 1, 1].
    dtype
        float64; or float32, where grids below 2**-100 count as zero.

    Raises
    ------
    ValueError
        If one product could reach 2**52, the total 2**63, or the grid changes along the sum.
    InexactError
        If the device's float64 products are not exact.
    """
    return product_sums(a, b).rounded(factor, dtype)


def product_sums(a: Fixed, b: Fixed, num_terms: int | None = None) -> Sums:
    """`product` before it is rounded, or a part of it: [..., m, n].

    Parameters
    ----------
    a, b
        As for `product`, with any `k` of the terms, even none.
    num_terms
        How many terms there are in all, on which bounds depend; by default `k`.
    """
    if not (
        (isinstance(a.scale, float) or a.scale.shape[-1] == 1)
        and (isinstance(b.scale, float) or b.scale.shape[-2] == 1)
    ):
        raise ValueError("an exact sum needs one grid along its terms")
    k = a.integers.shape[-1]
    bits = a.bits + b.bits
    bound = (k if num_terms is None else num_terms) * 2**bits
    if bits > EXACT_FLOAT64 or bound >= 2**63:
        raise ValueError(
            f"an exact sum of {bound >> bits} products of {bits} bits does not fit 63 bits"
        )
    terms = min(2 ** (EXACT_FLOAT64 - bits), EXACT_INT8_TERMS)
    if k <= terms:
        sums = multiply(a, b)
    else:
        pieces = zip(a.integers.split(terms, -1), b.integers.split(terms, -2), strict=True)
        exact = [
            multiply(Fixed(x, a.scale, a.bits), Fixed(y, b.scale, b.bits)).to(torch.int64)
            for x, y in pieces
        ]
        sums = torch.stack(exact).sum(0)
    return Sums(sums, a.scale * b.scale, bound)


def total(x: Fixed, dim: int, factor: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Sum over the rows (`dim` -2) or columns (-1): exact while ``n * 2**x.bits <= 2**52``.

    Parameters
    ----------
    x
        [..., m, n].
    dim
        -2 or -1; it is not kept.
    factor, dtype
        As for `product`.

    Raises
    ------
    ValueError
        If the sum could be inexact.
    """
    return total_sums(x, dim).rounded(factor).squeeze(dim).to(dtype)


def total_sums(x: Fixed, dim: int, num_terms: int | None = None) -> Sums:
    """`total` before it is rounded, or a part of it; parameters as for `product_sums`.

    `dim` is kept.
    """
    n = x.integers.shape[dim] if num_terms is None else num_terms
    bound = n * 2**x.bits
    if bound > 2**EXACT_FLOAT64:
        raise ValueError(f"an exact sum of {n} numbers of {x.bits} bits does not fit 52 bits")
    sums = whole_sums(x, dim).to(torch.float64).add_(0.0)  # no zero has a sign
    return Sums(sums, x.scale, bound)


def mean(values: Tensor) -> float:
    """Mean of a vector of float64 numbers with a finite sum, on a grid of 30 bits; NaN of none.

    Sums of up to 2**22 numbers are exact, and more of them are added up with one rounding.
    """
    if not len(values):
        return float("nan")
    x = quantise(values[None], 30)
    pieces = (Fixed(piece, x.scale, x.bits) for piece in x.integers.split(2**22, -1))
    return math.fsum(float(total(piece, -1)[0]) for piece in pieces) / len(values)
