"""Matrices on a grid: whole numbers times a power of two, each rounded once.

The grid follows the largest magnitude of a matrix, which has no order. On the CPU that magnitude
becomes a Python number; on other devices it stays there, so that no step waits for them.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

NARROW = 64  # columns below which limbs are stored by column: one product instead of several
PIXEL_MIDDLE = 128  # subtracted from pixels to make them int8
SMALLEST_EXPONENT = -100  # no grid is finer than that of a matrix whose maximum is 2**-100
FLOAT32_BITS = 22  # of a grid, at most
FLOAT64_BITS = 50


def on_host(device: torch.device) -> bool:
    """Whether Python reads numbers of this device without a wait."""
    return device.type == "cpu"


@dataclass(slots=True)
class Fixed:
    """A matrix on a grid, or a batch of them: ``integers * scale``."""

    integers: Tensor
    """Whole numbers [..., m, n], float32 or float64; or uint8 for raw pixels."""

    scale: float | Tensor
    """A power of two; or one for every matrix [..., 1, 1] or row [..., m, 1], float64."""

    bits: int
    """No magnitude exceeds ``2**bits``."""

    known_limbs: Tensor | None = None
    """Result of `limbs`, once computed."""

    known_float64: Tensor | None = None
    """Result of `float64`, once computed."""

    @property
    def mT(self) -> "Fixed":
        """Every matrix transposed, with its grid."""
        scale = self.scale if isinstance(self.scale, float) else self.scale.mT
        limbs = None if self.known_limbs is None else self.known_limbs.mT
        wide = None if self.known_float64 is None else self.known_float64.mT
        return Fixed(self.integers.mT, scale, self.bits, limbs, wide)

    @property
    def is_pixels(self) -> bool:
        """Whether the whole numbers are raw pixels."""
        return self.integers.dtype == torch.uint8

    def float64(self) -> Tensor:
        """The whole numbers in float64: [..., m, n]."""
        if self.known_float64 is None:
            self.known_float64 = self.integers.to(torch.float64)
        return self.known_float64

    def limbs(self) -> Tensor:
        """Balanced base-256 limbs, -128 to 127, lowest first: int8 [d, m, n].

        ``x = sum 256**i limb_i`` with d limbs as long as ``bits <= 8 d - 2``; pixels are 128 more
        than their one limb. Each limb has the memory layout of the matrix, so that transposing
        costs nothing.
        """
        if self.known_limbs is None:
            self.known_limbs = _split(self.integers, num_limbs(self.bits))
        return self.known_limbs


def pixels(images: Tensor) -> Fixed:
    """Raw pixels, uint8 from 0 to 255 (else `ValueError`), on the grid of whole numbers."""
    if images.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8, not {images.dtype}")
    return Fixed(images, 1.0, 8)


def magnitude(x: Tensor, *, by_row: bool = False) -> float | Tensor:
    """Largest absolute value of every matrix, or of every row; NaN where a number is NaN.

    A float for one matrix on the CPU; else float64 [..., 1, 1], or [..., m, 1] by row.
    """
    if by_row:
        return x.abs().amax(dim=-1, keepdim=True).to(torch.float64)
    if x.dim() > 2 or not on_host(x.device):
        largest, smallest = (f(dim=(-2, -1), keepdim=True) for f in (x.amax, x.amin))
        return torch.maximum(largest, smallest.neg_()).to(torch.float64)
    smallest, largest = torch.aminmax(x)
    return max(-smallest.item(), largest.item())


def quantise(x: Tensor, bits: int, largest: float | Tensor | None = None) -> Fixed:
    """Round every matrix to the grid on which its largest magnitude takes `bits` bits.

    With ``2**(e-1) <= largest < 2**e`` the grid is ``2**(e - bits)``, so ``|integer| <= 2**bits``.

    Parameters
    ----------
    x
        float32 or float64 [..., m, n].
    bits
        Bits of magnitude: at most 22 for float32, 50 for float64.
    largest
        `magnitude` of the whole where `x` is a part of it (a shard of a batch), or by row where
        every row is to have its own grid; by default of `x`. If not finite, nor is any result.

    Raises
    ------
    ValueError
        If there are too many bits for the dtype.
    """
    most = FLOAT32_BITS if x.dtype == torch.float32 else FLOAT64_BITS
    if bits > most:
        raise ValueError(f"a grid of {bits} bits is too fine for {x.dtype}: at most {most}")
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


def num_limbs(bits: int) -> int:
    """How many balanced base-256 limbs hold whole numbers of magnitude ``2**bits`` or less."""
    return -(-(bits + 2) // 8)


def _split(x: Tensor, count: int) -> Tensor:
    """`Fixed.limbs` of the whole numbers `x`."""
    if x.dtype == torch.uint8:
        return x.bitwise_xor(PIXEL_MIDDLE).view(torch.int8)[None]
    rest = x.to(torch.int16 if count <= 2 else torch.int32)
    by_column = x.stride(-1) != 1 or x.shape[-1] < NARROW
    if by_column:
        rest = rest.mT.contiguous()
    limbs = torch.empty((count, *rest.shape), dtype=torch.int8, device=x.device)
    for i, limb in enumerate(limbs.unbind(0)):
        if i:
            rest.add_(128).bitwise_right_shift_(8)
        limb.copy_(rest)  # keeps the low byte, as a signed number
    return limbs.mT if by_column else limbs
