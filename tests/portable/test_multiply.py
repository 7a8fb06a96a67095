"""No way to a product is taken before it has been tried, and none that is wrong."""

import itertools
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from matrices import (
    floats,
    int_mm_of_cuda,
    pixels,
    random_floats,
    same_bits,
    true_product,
)
from refashion.portable import exact, fixed, multiply
from refashion.portable.exact import Fixed
from refashion.portable.multiply import InexactError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test try anew what it takes."""
    monkeypatch.setattr(multiply, "_ways", {})
    for function in ("int8_is_faster", "require_exact_float64"):
        monkeypatch.setattr(multiply, function, cache(getattr(multiply, function).__wrapped__))


def right(a: Tensor, b: Tensor) -> Tensor:
    return a.to(torch.int32) @ b.to(torch.int32)


def saturating(a: Tensor, b: Tensor, offset: int = 0) -> Tensor:
    """Sums of two products stop at 16 bits, where only -128 * -128 twice is too much."""
    pairs = (a.to(torch.int32) + offset)[:, :, None] * b.to(torch.int32)
    pairs = (pairs[:, ::2] + pairs[:, 1::2]).clamp(-(2**15), 2**15 - 1)
    return (pairs.sum(1) - offset * b.to(torch.int32).sum(0)).to(torch.int32)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Shapes and strides of all operands that reach a kernel which is right."""
    calls: list[Any] = []

    def watched(a: Tensor, b: Tensor) -> Tensor:
        calls.append((a.shape, a.stride(), b.shape, b.stride()))
        return right(a, b)

    monkeypatch.setattr(torch, "_int_mm", watched)
    return calls


def absent(a: Tensor, b: Tensor) -> Tensor:
    raise NotImplementedError("not on this build")


Kernel = Callable[[Tensor, Tensor], Tensor]
WRONG: dict[str, Kernel] = {
    "saturating": saturating,
    "saturating as vpmaddubsw does": lambda a, b: saturating(a, b, 128),
    "wrong when transposed": lambda a, b: right(a, b) + (0 if b.is_contiguous() else 1),
    "wrong in the last column": lambda a, b: right(a, b) + torch.eye(b.shape[1]).int()[-1],
    "untouched memory": lambda a, b: torch.full_like(right(a, b), 7),
    "absent": absent,
}


def assert_right(a: Fixed, b: Fixed, way: str = "int8", taken: str | None = None) -> None:
    """Check a product against the true one, and which way it took."""
    with multiply.products(way) as ways:
        assert same_bits(exact.product(a, b), true_product(a, b)), (a, b)
    assert taken is None or ways == {taken: 1}


@pytest.mark.parametrize("kernel", WRONG)
@pytest.mark.parametrize("operands", ["pixels", "transposed", "floats", "narrow", "wide", "stacks"])
def test_a_wrong_kernel_is_never_taken(
    kernel: str, operands: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "_int_mm", WRONG[kernel])
    a, b = {
        "pixels": (pixels(40, 64), floats(64, 70)),
        "transposed": (pixels(64, 40).mT, floats(64, 70)),
        "floats": (floats(40, 64), floats(70, 64).mT),
        "narrow": (pixels(80, 64), floats(64, 10)),
        "wide": (pixels(40, 64), floats(3, 70, 64).mT),
        "stacks": (pixels(3, 40, 64), floats(3, 70, 64).mT),
    }[operands]
    # One of them may be right for these operands.
    assert_right(a, b, taken=None if kernel == "wrong when transposed" else "float64")


@pytest.mark.parametrize("way", ["int8", "float64"])
@pytest.mark.parametrize(
    "shapes", [[(40, 64), (3, 64, 10)], [(70, 33), (3, 33, 70)], [(3, 9, 33), (3, 33, 10)]]
)
def test_products_with_a_stack(shapes: list[tuple[int, ...]], way: str) -> None:
    """Each matrix on its own grid, in either order of memory; pixels or numbers on the left."""
    first, second = shapes
    stack = exact.quantise(random_floats(*second) * torch.tensor([[[1e-9]], [[1.0]], [[1e9]]]), 14)
    by_column = exact.quantise(stack.mT.integers.contiguous().mT * stack.scale, 14)
    for b in (stack, by_column):
        for a in (pixels(*first), floats(*first)):
            assert_right(a, b, way, taken=way)
            assert_right(a, b, "auto")
    stack.integers[1] = torch.nan
    stack.scale[1] = torch.nan
    with multiply.products(way):
        poisoned = exact.product(pixels(*first), stack)
    assert poisoned.isnan().flatten(1).sum(1).tolist() == [0, poisoned[1].numel(), 0]


def test_a_verdict_belongs_to_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that fails for one length alone serves all others."""
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: right(a, b) + (a.shape[1] == 33))
    for k, way in ((32, "int8"), (33, "float64"), (34, "int8"), (33, "float64")):
        assert_right(pixels(9, k), floats(k, 8), taken=way)


@pytest.mark.parametrize(
    "change",
    [
        lambda a, b: (pixels(10, 32), b),
        lambda a, b: (a, floats(32, 9)),
        lambda a, b: (pixels(32, 9).mT, b),
        lambda a, b: (a, floats(32, 8, bits=15)),
        lambda a, b: (floats(9, 32), b),
        lambda a, b: (a, Fixed(b.integers.double(), b.scale, b.bits)),
        lambda a, b: (a, Fixed(torch.zeros(64, 8)[::2], 1.0, 14)),
    ],
    ids=["rows", "columns", "strides", "bits", "no pixels", "type", "gaps"],
)
def test_what_makes_another_signature(
    change: Callable[[Fixed, Fixed], tuple[Fixed, Fixed]], calls: list[Any]
) -> None:
    """The kernel is called twice as often where operands are tried first."""
    counts = []
    for changed in (False, False, True, True):
        a, b = pixels(9, 32), floats(32, 8)
        calls.clear()
        assert_right(*change(a, b) if changed else (a, b), taken="int8")
        counts.append(len(calls))
    assert counts[0] == 2 * counts[1] > 0 and counts[2] == 2 * counts[3] > 0


def split(m: int, n: int) -> Fixed:
    x = floats(m, n)
    x.limbs()
    return x


LEFT: dict[str, Callable[[int, int], Fixed]] = {
    "pixels": pixels,
    "floats": floats,
    "transposed": lambda m, k: floats(k, m).mT,
    "split, then transposed": lambda m, k: split(k, m).mT,
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize(("m", "k", "n"), [(9, 32, 8), (2, 2, 2), (70, 5, 3), (3, 5, 70)])
def test_a_trial_passes_the_kernel_what_the_product_does(
    m: int, k: int, n: int, left: str, calls: list[Any]
) -> None:
    """Shapes and strides of the very operands, limbs split before or after transposing."""
    assert_right(LEFT[left](m, k), floats(n, k).mT, taken="int8")
    half = len(calls) // 2
    assert calls and calls[:half] == calls[half:]


@pytest.mark.parametrize("way", ["float64", "int8"])
@pytest.mark.parametrize("bits", [(7, 23), (15, 15), (15, 22), (15, 23), (23, 15), (22, 22)])
def test_limbs_whose_partial_sums_are_as_large_as_they_get(
    bits: tuple[int, int], way: str, calls: list[Any]
) -> None:
    """All operands at their bound, one inner length below the next piece, last bit odd."""
    k = min(2 ** (multiply.EXACT_FLOAT64 - sum(bits)), multiply.EXACT_INT8_TERMS)
    for sign in (1.0, -1.0):
        a = torch.full((2, k), sign * (2.0 ** bits[0] - 1), dtype=torch.float64)
        b = torch.full((k, 2), 2.0 ** bits[1] - 1, dtype=torch.float64)
        a[1, 0] -= sign
        b[-1, 1] -= 1.0
        want = a.numpy().astype(np.int64) @ b.numpy().astype(np.int64)
        with multiply.products(way) as taken:
            got = exact.product(Fixed(a, 1.0, bits[0]), Fixed(b, 1.0, bits[1]))
        assert taken == {way: 1} and np.array_equal(got.numpy().astype(np.int64), want)


@pytest.mark.parametrize("shape", [(1, 64, 64), (64, 1, 64), (64, 64, 1), (0, 8, 8), (8, 0, 8)])
def test_operands_of_one_row_never_reach_the_kernel(
    shape: tuple[int, int, int], calls: list[Any]
) -> None:
    m, k, n = shape
    a = exact.pixels(torch.full((m, k), 200, dtype=torch.uint8))
    b = Fixed(torch.full((k, n), 3.0), 1.0, 14)
    with multiply.products("int8") as taken:
        assert torch.equal(exact.product(a, b), torch.full((m, n), 600.0 * k).double())
    assert taken == {"float64": 1} and not calls


def test_the_last_piece_of_a_long_sum_is_tried_for_itself(calls: list[Any]) -> None:
    """4,096 terms of 40 bits, then one, then two."""
    for k, way in itertools.product((4097, 4098), ("float64", "int8")):
        assert_right(floats(3, k, bits=20), floats(k, 3, bits=20), way)
    assert {shape[1] for shape, *_ in calls} == {4096, 2}


# --- float64 ----------------------------------------------------------------------------------


class Float64Products(torch.overrides.TorchFunctionMode):
    """Changes every product in float64 of more numbers than some."""

    def __init__(self, change: Callable[[Tensor], Tensor], larger_than: int = 0) -> None:
        self.change, self.larger_than = change, larger_than

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.__matmul__ and func is not torch.Tensor.matmul:
            return result
        if result.dtype != torch.float64 or result.numel() <= self.larger_than:
            return result
        return self.change(result)


def rounding(bits: int) -> Callable[[Tensor], Tensor]:
    """Rounding off some bits, as an emulation may."""
    return lambda product: product.div(2.0**bits).round().mul(2.0**bits)


@pytest.mark.parametrize(("bits", "larger_than"), [(1, 0), (8, 0), (1, 10_000)])
def test_float64_products_that_round_are_refused(bits: int, larger_than: int) -> None:
    with (
        Float64Products(rounding(bits), larger_than),
        pytest.raises(InexactError, match="float64 matrix products on cpu are not exact"),
    ):
        exact.product(floats(4, 4), floats(4, 4))


def test_exact_float64_products_are_tried_once() -> None:
    multiply.require_exact_float64(CPU)
    with Float64Products(rounding(1)):
        multiply.require_exact_float64(CPU)


@pytest.mark.parametrize("way", ["float64", "int8"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_zeros_have_no_sign(k: int, way: str) -> None:
    """-0.0 comes of -1 * 0, and of rounding a small negative number."""
    a = torch.zeros(4, k).masked_fill(torch.eye(4, k) > 0, -0.0)
    with multiply.products(way):
        product = exact.product(Fixed(a, 1.0, 14), Fixed(torch.full((k, 4), -1.0), 1.0, 14))
    assert not product.any() and not product.signbit().any()
    for dim in (-1, -2):
        sums = exact.total(Fixed(torch.full((3, 3), -0.0), 1.0, 14), dim)
        assert not sums.signbit().any()


# --- which one is faster ----------------------------------------------------------------------


def slowly(product: Tensor) -> Tensor:
    time.sleep(0.1)
    return product


def test_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_int_mm", right)
    with Float64Products(slowly):
        assert multiply.int8_is_faster(CPU)
    multiply.int8_is_faster.cache_clear()
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: slowly(right(a, b)))
    assert not multiply.int8_is_faster(CPU)


def test_without_the_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_int_mm")
    assert not multiply.int8_is_faster(CPU)
    for way in ("auto", "int8"):
        assert_right(pixels(40, 64), floats(64, 70), way, taken="float64")


# --- CUDA's rules, without CUDA ---------------------------------------------------------------


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU taken for a device with CUDA's kernel."""
    monkeypatch.setattr(fixed, "on_host", lambda device: False)
    monkeypatch.setattr(torch, "_int_mm", int_mm_of_cuda)


@pytest.mark.parametrize("layout", ["plain", "left transposed", "right transposed"])
def test_operands_that_cuda_would_refuse_never_reach_it(layout: str, cuda: None) -> None:
    for m, k, n in itertools.product((2, 8, 16, 17, 24), (8, 12, 16), (2, 8, 10, 72)):
        for make in (pixels, floats):
            a = make(k, m).mT if layout == "left transposed" else make(m, k)
            b = floats(n, k).mT if layout == "right transposed" else floats(k, n)
            assert_right(a, b)


def test_cuda_takes_what_fits(cuda: None) -> None:
    with multiply.products("int8") as taken:
        exact.product(pixels(256, 784), floats(784, 256))
        exact.product(pixels(256, 784).mT, floats(256, 256))
        exact.product(floats(256, 256), floats(256, 256).mT)
    assert taken == {"int8": 3}
