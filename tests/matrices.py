"""Matrices on grids, their true products, and a kernel that refuses what CUDA's does."""

import numpy as np
import torch
from torch import Tensor

from refashion.portable import exact
from refashion.portable.exact import Fixed


def random_pixels(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def random_floats(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pixels(*shape: int) -> Fixed:
    return exact.pixels(random_pixels(*shape))


def floats(*shape: int, bits: int = 14) -> Fixed:
    return exact.quantise(random_floats(*shape, dtype=torch.float32), bits)


def integers(x: Fixed) -> np.ndarray:
    """The whole numbers of `x`, as Python's integers."""
    return x.integers.numpy().astype(np.int64).astype(object)


def true_product(a: Fixed, b: Fixed, factor: float = 1.0) -> Tensor:
    """The product of Python's integers, rounded once to float64, times the scales."""
    sums = np.frompyfunc(float, 1, 1)(integers(a) @ integers(b)).astype(np.float64)
    return torch.from_numpy(sums) * (a.scale * b.scale * factor)


def same_bits(x: Tensor, y: Tensor) -> bool:
    """Equal in every bit, but for the sign of zero."""
    return torch.equal((x + 0.0).view(torch.int64), (y + 0.0).view(torch.int64))


INT_MM = torch._int_mm


def int_mm_of_cuda(a: Tensor, b: Tensor) -> Tensor:
    """`torch._int_mm` for operands that CUDA takes; else an error.

    CUDA checks lengths (aten/src/ATen/native/cuda/Blas.cpp); cuBLASLt asks for leading dimensions
    that are multiples of 8, and is silently wrong without.
    """
    (m, k), n = a.shape, b.shape[1]
    fits = m > 16 and k and n and k % 8 == 0 and n % 8 == 0
    for x in (a, b):
        shorter, longer = sorted(x.stride())
        fits = fits and shorter == 1 and longer % 8 == 0
    if not fits:
        raise AssertionError(f"{a.shape} {a.stride()} {b.shape} {b.stride()}")
    return INT_MM(a, b)
