"""The two ways to an exact product of whole numbers, and which of them may be taken.

``float64``
    One float64 matrix product: exact while every partial sum stays below 2**53.
``int8``
    Whole numbers split into balanced base-256 limbs; int8 matrix products of all pairs of limbs
    with int32 accumulation, added up in int32 or float64. Faster where the processor has int8 dot
    products.

No library promises that either is exact, so both are tried first. Float64 is compared with int64 on
the CPU, once per device. The int8 way is compared with float64 once for every *signature*: shapes,
strides, types, bits, device and threads of the operands. `torch._int_mm` has been wrong for one
shape and right for the next, by saturating, by an illegal leading dimension and by layout
(pytorch #107671, #169956, #195066).
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import product

import torch
from torch import Tensor

from refashion.portable import fixed, streams
from refashion.portable.fixed import NARROW, PIXEL_MIDDLE, Fixed, num_limbs

WAYS = ("auto", "int8", "float64")
EXACT_FLOAT32 = 24  # bits
EXACT_FLOAT64 = 52  # bits; 53 are exact, one is spared for the sum of the limbs' magnitudes
EXACT_INT8_TERMS = 2**16  # 2**16 * 128 * 128 = 2**30 < 2**31
LIMB_LIMIT = 30  # bits of magnitude that limbs are split from, in int32
WORTH_LIMBS = 2**23  # multiplications below which splitting costs more than it saves
WORTH_TERMS = 64  # terms of a sum below which it does, too
CUDA_ROWS = 16  # `torch._int_mm` on CUDA takes more rows than these,
CUDA_MULTIPLE = 8  # and lengths and leading dimensions that are multiples of this
ROUNDS = 6  # in which the two ways are timed
PERIOD = 4093  # after which the numbers of a trial repeat; a prime

Multiplier = Callable[[Fixed, Fixed], Tensor]
"""Multiplies the whole numbers of two matrices exactly; the result may have any dtype."""

_ways: dict[tuple[object, ...], Multiplier] = {}
"""Way of every signature that this process has tried."""

_products: ContextVar[tuple[str, Counter[str]]] = ContextVar("products")
"""The way that products take, and how many have taken each."""

_AUTO: tuple[str, Counter[str]] = ("auto", Counter())
"""Outside of all contexts."""


class InexactError(ArithmeticError):
    """The float64 products of a device are not exact."""


@contextmanager
def products(way: str) -> Iterator[Counter[str]]:
    """Context in which products take one way; yields how many have taken each.

    The way is ``float64``; ``int8`` wherever it is exact, however slow; or ``auto``, the faster
    one (else `ValueError`).
    """
    if way not in WAYS:
        raise ValueError(f"way {way!r}: must be one of {', '.join(WAYS)}")
    taken: Counter[str] = Counter()
    token = _products.set((way, taken))
    try:
        yield taken
    finally:
        _products.reset(token)


def multiply(a: Fixed, b: Fixed) -> Tensor:
    """Exact product of the whole numbers [..., m, k] and [..., k, n]: int32 or float64 [..., m, n].

    For ``k * 2**(a.bits + b.bits) <= 2**52``; `InexactError` as `require_exact_float64`. Where `b`
    is a stack of matrices, `a` is one too, or one matrix for all of them.
    """
    wanted, taken = _products.get(_AUTO)
    signature = wanted, _signature(a), _signature(b), torch.get_num_threads()
    way = _ways.get(signature)
    if way is None:
        way = _ways[signature] = _choose(a, b, wanted)
    taken["int8" if way is _int8 else "float64"] += 1
    return way(a, b)


def _signature(x: Fixed) -> tuple[object, ...]:
    integers, limbs = x.integers, x.known_limbs
    return (
        integers.shape,
        integers.stride(),
        integers.dtype,
        integers.device,
        x.bits,
        limbs is not None and limbs.stride(),
    )


def _choose(a: Fixed, b: Fixed, way: str) -> Multiplier:
    """Way of all operands that have the signature of these.

    The int8 way takes two rows, terms and columns at least: a dimension of size 1 may come with any
    stride, which oneDNN refuses and torch 2.13 and 2.14 did not notice.
    """
    device = a.integers.device
    require_exact_float64(device)
    (m, k), n = a.integers.shape[-2:], b.integers.shape[-1]
    if a.integers.dim() < b.integers.dim():
        n *= len(b.integers)  # of one wide product
    fit = (
        min(m, k, n) >= 2
        and k <= EXACT_INT8_TERMS
        and max(a.bits, b.bits) <= LIMB_LIMIT
        and not (a.is_pixels and b.is_pixels)
    )
    # Pixels need no splitting, and large products hide it.
    large = m * k * n >= WORTH_LIMBS and k >= WORTH_TERMS
    pays = way == "int8" or (way == "auto" and (a.is_pixels or b.is_pixels or large))
    if not fit or not pays or (way == "auto" and not int8_is_faster(device)):
        return _float64
    return _int8 if _int8_is_exact(a, b) else _float64


# --- the ways ---------------------------------------------------------------------------------


def _float64(a: Fixed, b: Fixed) -> Tensor:
    """One product in float64; no zero has a sign, whatever the library's kernel begins with."""
    left, right = a.float64(), b.float64()
    if right.dim() == 3 or right.shape[-1] < NARROW <= left.shape[-2]:  # long rows are faster
        return (right.mT @ left.mT).add_(0.0).mT
    return (left @ right).add_(0.0)


def _int8(a: Fixed, b: Fixed) -> Tensor:
    """Products of all pairs of limbs, ``sum 256**(i+j) a_i @ b_j``."""
    left_limbs, right_limbs = a.limbs(), b.limbs().mT  # split before they are transposed
    if b.integers.dim() == 3:
        return _int8_stack(a.mT, b.mT).mT
    (m, k), n = left_limbs.shape[1:], right_limbs.shape[1]
    if n < NARROW <= m:  # long rows are added faster than short ones
        return _int8(b.mT, a.mT).mT
    blocks = {}
    for i, left in _operands(left_limbs):
        for j, right in _operands(right_limbs):
            products = _int8_product(left, right.mT).view(-1, m, right.shape[0] // n, n)
            for p, rows in enumerate(products.unbind(0), start=i):
                for q, block in enumerate(rows.unbind(1), start=j):
                    blocks[p, q] = block
    total = _combine(blocks, _limb_bounds(a), _limb_bounds(b), k)
    # Limbs of pixels are 128 less than the pixels: add as many times the other matrix's sums.
    if a.is_pixels:
        sums = whole_sums(b, -2)
    elif b.is_pixels:
        sums = whole_sums(a, -1)
    else:
        return total
    if k * 2 ** (a.bits + b.bits) >= 2**31:
        total = total.to(torch.float64)
    return total.add_(sums.mul_(PIXEL_MIDDLE).to(total.dtype))


def _int8_stack(a: Fixed, b: Fixed) -> Tensor:
    """Product ``b @ a`` of a stack `b`: in one with a matrix, model by model with a stack.

    A stack's results have the units of each model as rows, and so has the memory of its weights.
    """
    if a.integers.dim() == 2:
        rows = Fixed(b.integers.flatten(0, 1), 1.0, b.bits, b.limbs().flatten(1, 2))
        return _int8(rows, a).unflatten(0, b.integers.shape[:2])
    pairs = zip(*(zip(x.integers, x.limbs().unbind(1), strict=True) for x in (b, a)), strict=True)
    return torch.stack(
        [
            _int8(Fixed(left, 1.0, b.bits, limbs), Fixed(right, 1.0, a.bits, others))
            for (left, limbs), (right, others) in pairs
        ]
    )


def whole_sums(x: Fixed, dim: int) -> Tensor:
    """Sums of the whole numbers, `dim` kept, in the narrowest type that holds them exactly."""
    largest = x.integers.shape[dim] * 2**x.bits
    narrow = x.integers.dtype == torch.float32 and largest <= 2**EXACT_FLOAT32
    return x.integers.sum(dim, keepdim=True, dtype=torch.float32 if narrow else torch.float64)


def _operands(limbs: Tensor) -> list[tuple[int, Tensor]]:
    """The limbs [d, m, k]: one below the other where memory has them so, else one by one."""
    if limbs.stride(0) == limbs.shape[1] * limbs.stride(1):
        return [(0, limbs.flatten(0, 1))]
    return list(enumerate(limbs.unbind(0)))


def _int8_product(left: Tensor, right: Tensor) -> Tensor:
    """Product of int8 [m, k] and [k, n]: int32 [m, n]."""
    if not fixed.on_host(left.device):
        lengths = *right.shape, *(max(x.stride()) for x in (left, right))
        if len(left) <= CUDA_ROWS or any(length % CUDA_MULTIPLE for length in lengths):
            raise NotImplementedError("CUDA's kernel does not take operands of this shape")
    return torch._int_mm(left, right)


def _combine(
    blocks: dict[tuple[int, int], Tensor], left: list[int], right: list[int], k: int
) -> Tensor:
    """``sum 256**(i+j) blocks[i, j]`` by Horner's rule; exact, so multiply and add may be fused.

    In int32 while the bound of the magnitude allows, which halves the memory that is moved, then
    in float64, below 2**52.
    """
    sums: list[tuple[int, Tensor]] = []  # power of 256, and terms that were added in int32
    bound = 2**31
    for power, i, j in sorted(((i + j, i, j) for i, j in blocks), reverse=True):
        factor = 256 ** (sums[-1][0] - power) if sums else 1
        bound, own = bound * factor, k * left[i] * right[j]
        if bound + own < 2**31:
            sums[-1] = power, blocks[i, j].add_(sums[-1][1], alpha=factor)
            bound += own
        else:
            sums.append((power, blocks[i, j]))
            bound = own
    (higher, total), *rest = sums
    for power, terms in rest:
        gap = 256.0 ** (higher - power)
        total, higher = terms.to(torch.float64).add_(total.to(torch.float64), alpha=gap), power
    return total


def _limb_bounds(x: Fixed) -> list[int]:
    """Largest magnitude of each limb of a matrix, lowest limb first."""
    if x.is_pixels:
        return [PIXEL_MIDDLE]
    count = num_limbs(x.bits)
    return [128] * (count - 1) + [2 ** max(0, x.bits - 8 * (count - 1))]


# --- trials -----------------------------------------------------------------------------------


@cache
def require_exact_float64(device: torch.device) -> None:
    """Raise `InexactError` if float64 products near 2**52 are not int64's of the CPU; tried once.

    Small and large products, since a library may compute large ones otherwise (cuBLAS can emulate
    float64). Copies of a small product's operands have copies of its result.
    """
    many = [1, 16] if fixed.on_host(device) else [1, 16, 256]
    for k, bits, counts in ((4096, (20, 20), [1]), (512, (22, 21), many)):
        rows = _trial_numbers((8, k), torch.int64, bits[0], 1)
        columns = _trial_numbers((8, k), torch.int64, bits[1], 2).mT
        want = (rows @ columns).to(torch.float64)
        for count in counts:
            left = rows.repeat(count, 1).to(device, torch.float64)
            right = columns.repeat(1, count).to(device, torch.float64)
            layouts = ((x, x.mT.contiguous().mT) for x in (left, right))
            for x, y in product(*layouts):
                if not torch.equal((x @ y).cpu(), want.repeat(count, count)):
                    raise InexactError(
                        f"float64 matrix products on {device} are not exact, so nothing that is "
                        "computed there is portable: use another device, or switch off whatever "
                        "emulates float64 (as CUBLAS_EMULATE_DOUBLE_PRECISION does)"
                    )


@cache
def int8_is_faster(device: torch.device) -> bool:
    """Whether the int8 way beats float64 on this device; found out once per process.

    They take turns, so that whatever slows the machine slows both, at a product of the size that
    training spends its time on: the smaller it is, the less they differ.
    """
    pixels = _trial(Fixed(torch.empty(256, 784, dtype=torch.uint8, device=device), 1.0, 8))
    weights = _trial(Fixed(torch.empty(784, 256, dtype=torch.float32, device=device), 1.0, 14))
    if not _int8_is_exact(pixels, weights):
        return False

    def seconds(way: Multiplier) -> float:
        a, b = (Fixed(x.integers, 1.0, x.bits) for x in (pixels, weights))  # not split yet
        started = time.perf_counter()
        way(a, b)[0, 0].item()
        return time.perf_counter() - started

    rounds = [(seconds(_int8), seconds(_float64)) for _ in range(ROUNDS)]
    int8, float64 = map(min, zip(*rounds, strict=True))
    return int8 < float64


def _int8_is_exact(a: Fixed, b: Fixed) -> bool:
    """Whether the int8 way is right for the least favourable numbers of this signature."""
    try:
        left, right = _trial(a), _trial(b.mT).mT
        result = _int8(left, right)
    except (AttributeError, RuntimeError):  # no such kernel, or none for these operands
        return False
    return torch.equal(result.to(torch.float64), _float64(left, right))


def _trial(like: Fixed) -> Fixed:
    """The least favourable matrix with the signature of `like`."""
    x, known = like.integers, like.known_limbs
    integers = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    trial = Fixed(integers.copy_(_trial_numbers(x.shape, x.dtype, like.bits, 3)), 1.0, like.bits)
    if known is not None:
        limbs = torch.empty_strided(known.shape, known.stride(), dtype=known.dtype, device=x.device)
        trial.known_limbs = limbs.copy_(trial.limbs())
    return trial


def _trial_numbers(shape: tuple[int, ...], dtype: torch.dtype, bits: int, seed: int) -> Tensor:
    """Whole numbers [..., n]: four rows of extremes, of the numbers or of their low limbs.

    Below them pseudo-random numbers of all magnitudes, which soon repeat.
    """
    n = shape[-1]
    m = math.prod(shape[:-1])
    words = streams.bits(PERIOD, streams.key(seed, streams.Purpose.SELFTEST))
    if dtype == torch.uint8:
        extremes = [0, 255, 128, 127]
    else:
        low = 128 * (256 ** (num_limbs(bits) - 1) - 1) // 255
        extremes = [2**bits, -(2**bits), 2**bits - low, low - 2**bits]
    words = words.bitwise_right_shift_(63 - bits).to(dtype)  # of pixels, the low byte
    numbers = words.repeat(-(-m * n // PERIOD))[: m * n].view(m, n)
    for row, extreme in zip(numbers.unbind(0), extremes, strict=False):
        row.fill_(extreme)
    return numbers.view(shape)
