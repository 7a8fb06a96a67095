"""The two ways to an exact product of whole numbers, and which of them may be taken.

``float64``
    One float64 matrix product: exact while every partial sum stays below 2**53.
``int8``
    Whole numbers split into balanced base-256 digits, one int8 matrix product with int32
    accumulation for all pairs of digits, put together in int32 or float64. Faster where the
    processor has int8 dot products.

No library promises the exactness of either, so both are tried first. Float64 is held against int64
on the CPU, once per device. The int8 way is held against float64 once for every *signature*:
shapes, strides, types, bits, device and threads of the operands. `torch._int_mm` has been wrong for
one shape and right for the next, by saturating, by an illegal leading dimension and by layout
(pytorch #107671, #169956, #195066).
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor

from refashion.portable import fixed, streams
from refashion.portable.fixed import NARROW, PIXEL_MIDDLE, Fixed, num_digits

WAYS = ("auto", "int8", "float64")
EXACT_FLOAT32 = 24  # bits
EXACT_FLOAT64 = 52  # bits; 53 are exact, one is spared for the sum of the digits' magnitudes
EXACT_INT8_TERMS = 2**16  # 2**16 * 128 * 128 = 2**30 < 2**31
DIGIT_LIMIT = 30  # bits of magnitude that digits are split from, in int32
WORTH_DIGITS = 2**23  # multiplications below which splitting costs more than it saves
WORTH_TERMS = 64  # in a sum, likewise
CUDA_ROWS = 16  # `torch._int_mm` on CUDA takes more rows than these,
CUDA_MULTIPLE = 8  # and lengths and leading dimensions that are multiples of this
MOST_ROUNDS = 16  # of the race of the two ways
PERIOD = 4093  # numbers after which those that a product is tried with repeat; a prime

Multiplier = Callable[[Fixed, Fixed], Tensor]
"""From two matrices to the exact product of their whole numbers, in any dtype."""

_ways: dict[tuple[object, ...], Multiplier] = {}
"""The way of every signature that has been tried, as long as the process lives."""
_products: ContextVar[str] = ContextVar("products", default="auto")
_taken: ContextVar[Counter[str] | None] = ContextVar("taken", default=None)


class InexactError(ArithmeticError):
    """A device whose float64 products are not exact."""


@contextmanager
def products(way: str) -> Iterator[Counter[str]]:
    """Context in which products take one way.

    Parameters
    ----------
    way
        ``float64``; ``int8`` wherever it is exact, however slow; or ``auto``, the faster one.

    Yields
    ------
    Counter
        How many products have gone each way.

    Raises
    ------
    ValueError
        If there is no such way.
    """
    if way not in WAYS:
        raise ValueError(f"way {way!r}: must be one of {', '.join(WAYS)}")
    taken: Counter[str] = Counter()
    tokens = _products.set(way), _taken.set(taken)
    try:
        yield taken
    finally:
        _products.reset(tokens[0])
        _taken.reset(tokens[1])


def multiply(a: Fixed, b: Fixed) -> Tensor:
    """Exact product of the whole numbers, by the fastest way that is; the bits are the same.

    Parameters
    ----------
    a, b
        [..., m, k] and [..., k, n], with ``k * 2**(a.bits + b.bits) <= 2**52``.

    Returns
    -------
    Tensor
        [..., m, n]: whole numbers in int32 or float64.

    Raises
    ------
    InexactError
        If this device's float64 products are not exact.
    """
    signature = _products.get(), _signature(a), _signature(b), torch.get_num_threads()
    way = _ways.get(signature)
    if way is None:
        way = _ways[signature] = _choose(a, b, signature[0])
    if (taken := _taken.get()) is not None:
        taken["int8" if way is _int8 else "float64"] += 1
    return way(a, b)


def _signature(x: Fixed) -> tuple[object, ...]:
    integers, digits = x.integers, x.known_digits
    return (
        integers.shape,
        integers.stride(),
        integers.dtype,
        integers.device,
        x.bits,
        digits is not None and digits.stride(),
    )


def _choose(a: Fixed, b: Fixed, way: str) -> Multiplier:
    """The way of operands with this signature."""
    device = a.integers.device
    require_exact_float64(device)
    if way == "float64" or not _takes_digits(a, b):
        return _float64
    if way == "auto" and not (_worth_digits(a, b) and int8_is_faster(device)):
        return _float64
    return _int8 if _int8_is_exact(a, b) else _float64


def _takes_digits(a: Fixed, b: Fixed) -> bool:
    """Whether the int8 way serves at all: matrices of two rows, terms and columns at least.

    An operand with a dimension of size 1 may come with any stride there, which oneDNN refuses and
    torch 2.13 and 2.14 did not notice.
    """
    (m, k), n = a.integers.shape[-2:], b.integers.shape[-1]
    return (
        a.integers.dim() == b.integers.dim() == 2
        and min(m, k, n) >= 2
        and k <= EXACT_INT8_TERMS
        and max(a.bits, b.bits) <= DIGIT_LIMIT
        and not (a.is_pixels and b.is_pixels)
    )


def _worth_digits(a: Fixed, b: Fixed) -> bool:
    """Whether splitting pays: pixels need none, and large products hide it."""
    (m, k), n = a.integers.shape, b.integers.shape[1]
    return a.is_pixels or b.is_pixels or (m * k * n >= WORTH_DIGITS and k >= WORTH_TERMS)


# --- the ways ---------------------------------------------------------------------------------


def _float64(a: Fixed, b: Fixed) -> Tensor:
    """One product in float64; no zero has a sign, whatever the library's kernel begins with."""
    left, right = a.float64(), b.float64()
    if right.shape[-1] < NARROW <= left.shape[-2]:  # long rows are multiplied faster
        return (right.mT @ left.mT).add_(0.0).mT
    return (left @ right).add_(0.0)


def _int8(a: Fixed, b: Fixed) -> Tensor:
    """Products of all pairs of digits, ``sum 256**(i+j) a_i @ b_j``."""
    left_digits, right_digits = a.digits(), b.digits().mT  # split before they are transposed
    (m, k), n = left_digits.shape[1:], right_digits.shape[1]
    if n < NARROW <= m:  # long rows are added faster than short ones
        return _int8(b.mT, a.mT).mT
    blocks = {}
    for i, left in _operands(left_digits):
        for j, right in _operands(right_digits):
            found = _digit_product(left, right.mT).view(-1, m, right.shape[0] // n, n)
            for p, rows in enumerate(found.unbind(0), start=i):
                for q, block in enumerate(rows.unbind(1), start=j):
                    blocks[p, q] = block
    total = _combine(blocks, _horner(a.is_pixels, a.bits, b.is_pixels, b.bits, k))
    # What was taken off the pixels comes back as so many times the other's sums.
    if a.is_pixels:
        sums = whole_sums(b, -2)
    elif b.is_pixels:
        sums = whole_sums(a, -1)
    else:
        return total
    if k * 2 ** (a.bits + b.bits) >= 2**31:
        total = total.to(torch.float64)
    return total.add_(sums.mul_(PIXEL_MIDDLE).to(total.dtype))


def whole_sums(x: Fixed, dim: int) -> Tensor:
    """Sums of the whole numbers, `dim` kept, in the narrowest type that holds them exactly."""
    largest = x.integers.shape[dim] * 2**x.bits
    narrow = x.integers.dtype == torch.float32 and largest <= 2**EXACT_FLOAT32
    return x.integers.sum(dim, keepdim=True, dtype=torch.float32 if narrow else torch.float64)


def _operands(digits: Tensor) -> list[tuple[int, Tensor]]:
    """The digits [d, m, k] one below the other, where they lie so, else one by one."""
    if digits.stride(0) == digits.shape[1] * digits.stride(1):
        return [(0, digits.flatten(0, 1))]
    return list(enumerate(digits.unbind(0)))


def _digit_product(left: Tensor, right: Tensor) -> Tensor:
    """Product of int8 [m, k] and [k, n]: int32 [m, n]."""
    if not fixed.on_host(left.device) and not _cuda_takes(left, right):
        raise NotImplementedError("the CUDA kernel does not take operands of this shape")
    return torch._int_mm(left, right)


def _cuda_takes(left: Tensor, right: Tensor) -> bool:
    """Whether the operands have the lengths and leading dimensions that CUDA's kernel asks for."""
    (m, k), n = left.shape, right.shape[1]
    lengths = k, n, *(max(x.stride()) for x in (left, right))
    return m > CUDA_ROWS and not any(length % CUDA_MULTIPLE for length in lengths)


Run = tuple[int, list[tuple[tuple[int, int], int]]]
"""Products of digits that are added in int32: the power of 256 of the last one; then every pair of
digits, with what the sum so far is multiplied by before theirs is added."""


def _combine(blocks: dict[tuple[int, int], Tensor], runs: list[Run]) -> Tensor:
    """``sum 256**(i+j) blocks[i, j]``; nothing is rounded, fused or not."""
    sums = []
    for _, pairs in runs:
        total = blocks[pairs[0][0]]
        for pair, factor in pairs[1:]:
            total = blocks[pair].add_(total, alpha=factor)
        sums.append(total)
    if len(runs) == 1:
        return total
    power, wide = runs[0][0], sums[0].to(torch.float64)
    for (p, _), part in zip(runs[1:], sums[1:], strict=True):
        wide = part.to(torch.float64).add_(wide, alpha=256.0 ** (power - p))
        power = p
    return wide


@cache
def _horner(a_pixels: bool, a_bits: int, b_pixels: bool, b_bits: int, k: int) -> list[Run]:
    """How products of digits are put together: by Horner's rule, highest power first.

    In int32 as long as the bounds of their magnitudes allow, which halves the memory that is moved;
    the sums of these in float64, below 2**52.
    """
    pairs = [
        (i + j, (i, j), k * rows * columns)
        for i, rows in enumerate(_digit_bounds(a_pixels, a_bits))
        for j, columns in enumerate(_digit_bounds(b_pixels, b_bits))
    ]
    runs: list[Run] = []
    power, total = 0, 2**31
    for p, pair, bound in sorted(pairs, reverse=True):
        factor = 256 ** (power - p) if runs else 1
        if total * factor + bound < 2**31:
            runs[-1] = (p, [*runs[-1][1], (pair, factor)])
            total = total * factor + bound
        else:
            runs.append((p, [(pair, 1)]))
            total = bound
        power = p
    return runs


def _digit_bounds(pixels: bool, bits: int) -> list[int]:
    """Largest magnitude of each digit of a matrix, lowest digit first."""
    if pixels:
        return [PIXEL_MIDDLE]
    count = num_digits(bits)
    return [128] * (count - 1) + [2 ** max(0, bits - 8 * (count - 1))]


# --- their trials -----------------------------------------------------------------------------


@cache
def require_exact_float64(device: torch.device) -> None:
    """Try float64 products with sums near 2**52 against int64 on the CPU, once per device.

    Small ones and large ones, since a library may compute large ones otherwise (cuBLAS can emulate
    float64): copies of a small product's operands have copies of its result.

    Raises
    ------
    InexactError
        If one of them is not exact.
    """
    many = [1, 16] if fixed.on_host(device) else [1, 16, 256]
    for k, bits, counts in ((4096, (20, 20), [1]), (512, (22, 21), many)):
        rows = _trial_numbers((8, k), bits[0], 1)
        columns = _trial_numbers((8, k), bits[1], 2).mT
        want = (rows @ columns).to(torch.float64)
        for count in counts:
            left = rows.repeat(count, 1).to(device, torch.float64)
            right = columns.repeat(1, count).to(device, torch.float64)
            for x in (left, left.mT.contiguous().mT):
                for y in (right, right.mT.contiguous().mT):
                    if not torch.equal((x @ y).cpu(), want.repeat(count, count)):
                        raise InexactError(
                            f"float64 matrix products on {device} are not exact, so nothing that "
                            "is computed there is portable: use another device, or switch off "
                            "whatever emulates float64 (as CUBLAS_EMULATE_DOUBLE_PRECISION does)"
                        )


@cache
def int8_is_faster(device: torch.device) -> bool:
    """Whether the int8 way beats float64 on this device; found out once per process.

    They take turns until one is clearly ahead, so that what else the machine does strikes both.
    """
    pixels = _trial((256, 784), (784, 1), torch.uint8, 8, device)
    weights = _trial((784, 64), (64, 1), torch.float32, 14, device)
    if not _int8_is_exact(pixels, weights):
        return False
    best = {_int8: math.inf, _float64: math.inf}
    for rounds in range(MOST_ROUNDS):
        for way in best:
            best[way] = min(best[way], _seconds(way, pixels, weights))
        if rounds >= 2 and max(best.values()) > 1.5 * min(best.values()):
            break
    return best[_int8] < best[_float64]


def _seconds(way: Multiplier, a: Fixed, b: Fixed) -> float:
    """The time of one product, its operands converted anew."""
    started = time.perf_counter()
    way(Fixed(a.integers, 1.0, a.bits), Fixed(b.integers, 1.0, b.bits))[0, 0].item()
    return time.perf_counter() - started


def _int8_is_exact(a: Fixed, b: Fixed) -> bool:
    """Go the whole int8 way with the least favourable numbers of this signature, and compare."""
    try:
        left, right = _trial_like(a), _trial_like(b.mT).mT
        found = _int8(left, right)
    except (AttributeError, RuntimeError):  # no such kernel, or none for these operands
        return False
    return torch.equal(found.to(torch.float64), _float64(left, right))


def _trial_like(x: Fixed) -> Fixed:
    """A matrix to try a product with: alike in all that a signature tells."""
    alike = _trial(
        x.integers.shape, x.integers.stride(), x.integers.dtype, x.bits, x.integers.device
    )
    if x.known_digits is not None:
        own = torch.empty_like(alike.digits()).as_strided(
            x.known_digits.shape, x.known_digits.stride()
        )
        alike.known_digits = own.copy_(alike.digits())
    return alike


def _trial(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: torch.dtype,
    bits: int,
    device: torch.device,
) -> Fixed:
    integers = torch.empty_strided(shape, strides, dtype=dtype, device=device)
    pixels = dtype == torch.uint8
    integers.copy_(_trial_numbers(shape, bits, 3, pixels=pixels, dtype=dtype))
    return Fixed(integers, 1.0, bits)


def _trial_numbers(
    shape: tuple[int, ...],
    bits: int,
    seed: int,
    *,
    pixels: bool = False,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """Whole numbers [m, n]: rows of one extreme each, of the numbers or of their low digits.

    Below them random numbers of all magnitudes, that soon repeat themselves.
    """
    m, n = shape
    key = streams.key(seed, streams.Purpose.SELFTEST)
    words = streams.bits(PERIOD, key)
    if pixels:
        extremes = [0, 255, 128, 127]
        words = words.bitwise_and_(255)
    else:
        low = 128 * (256 ** (num_digits(bits) - 1) - 1) // 255
        extremes = [2**bits, -(2**bits), 2**bits - low, low - 2**bits]
        words = words.bitwise_right_shift_(63 - bits)
    numbers = words.to(dtype).repeat(-(-m * n // PERIOD))[: m * n].view(m, n)
    for row, extreme in zip(numbers.unbind(0), extremes, strict=False):
        row.fill_(extreme)
    return numbers
