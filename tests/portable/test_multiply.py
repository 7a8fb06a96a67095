"""No way to a product is taken before it has been tried, and none that is wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from refashion.portable import exact, fixed, multiply
from refashion.portable.exact import Fixed
from refashion.portable.multiply import InexactError

CPU = torch.device("cpu")
REAL = torch._int_mm


@pytest.fixture(autouse=True)
def nothing_tried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test tries anew what it takes."""
    monkeypatch.setattr(multiply, "_ways", {})
    multiply.int8_is_faster.cache_clear()
    multiply.require_exact_float64.cache_clear()
    yield
    multiply.int8_is_faster.cache_clear()
    multiply.require_exact_float64.cache_clear()


def pixels(m: int, k: int) -> Fixed:
    generator = torch.Generator().manual_seed(m * 1000 + k)
    return exact.pixels(torch.randint(0, 256, (m, k), dtype=torch.uint8, generator=generator))


def floats(m: int, n: int, bits: int = 14) -> Fixed:
    generator = torch.Generator().manual_seed(m * 1000 + n)
    return exact.quantise(torch.randn(m, n, generator=generator), bits)


def true_product(a: Tensor, b: Tensor) -> Tensor:
    return (a.to(torch.float64) @ b.to(torch.float64)).to(torch.int32)


def oracle(a: Fixed, b: Fixed) -> Tensor:
    return (a.integers.long() @ b.integers.long()).double()


def saturating(a: Tensor, b: Tensor) -> Tensor:
    """What ``vpmaddubsw`` makes of it: sums of two products stop at 16 bits."""
    unsigned = a.to(torch.int32) + 128
    pairs = unsigned[:, :, None] * b.to(torch.int32)
    pairs = (pairs[:, ::2] + pairs[:, 1::2]).clamp(-(2**15), 2**15 - 1)
    return (pairs.sum(1) - 128 * b.to(torch.int32).sum(0)).to(torch.int32)


def saturating_signed(a: Tensor, b: Tensor) -> Tensor:
    """The same for signed numbers: only -128 * -128 twice is too much."""
    pairs = a.to(torch.int32)[:, :, None] * b.to(torch.int32)
    return (pairs[:, ::2] + pairs[:, 1::2]).clamp(-(2**15), 2**15 - 1).sum(1).to(torch.int32)


def wrong_when_transposed(a: Tensor, b: Tensor) -> Tensor:
    return true_product(a, b) + (0 if b.is_contiguous() else 1)


def wrong_in_the_last_column(a: Tensor, b: Tensor) -> Tensor:
    found = true_product(a, b)
    found[-1, -1] += 1
    return found


def untouched_memory(a: Tensor, b: Tensor) -> Tensor:
    return torch.full((a.shape[0], b.shape[1]), 7, dtype=torch.int32)


def absent(a: Tensor, b: Tensor) -> Tensor:
    raise NotImplementedError("not on this build")


WRONG = [
    saturating,
    saturating_signed,
    wrong_when_transposed,
    wrong_in_the_last_column,
    untouched_memory,
    absent,
]


@pytest.mark.parametrize("fake", WRONG)
@pytest.mark.parametrize("operands", ["pixels", "transposed", "floats", "narrow"])
def test_a_wrong_kernel_is_never_taken(
    fake: Callable[[Tensor, Tensor], Tensor], operands: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "_int_mm", fake)
    a, b = {
        "pixels": (pixels(40, 64), floats(64, 70)),
        "transposed": (pixels(64, 40).mT, floats(64, 70)),
        "floats": (floats(40, 64), floats(70, 64).mT),
        "narrow": (pixels(80, 64), floats(64, 10)),
    }[operands]
    with multiply.products("int8") as taken:
        assert torch.equal(exact.product(a, b), oracle(a, b) * a.scale * b.scale)
    if fake is not wrong_when_transposed:  # which may be right for these operands
        assert taken == {"float64": 1}


def test_a_right_kernel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_int_mm", true_product)
    with multiply.products("int8") as taken:
        a, b = pixels(40, 64), floats(64, 70)
        assert torch.equal(exact.product(a, b), oracle(a, b) * b.scale)
    assert taken == {"int8": 1}


def test_a_verdict_belongs_to_its_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that fails for one length alone serves all others."""

    def wrong_for_33(a: Tensor, b: Tensor) -> Tensor:
        return true_product(a, b) + (a.shape[1] == 33)

    monkeypatch.setattr(torch, "_int_mm", wrong_for_33)
    for k, way in ((32, "int8"), (33, "float64"), (34, "int8"), (33, "float64")):
        a, b = pixels(9, k), floats(k, 8)
        with multiply.products("int8") as taken:
            assert torch.equal(exact.product(a, b), oracle(a, b) * b.scale)
        assert taken == {way: 1}


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
    change: Callable[[Fixed, Fixed], tuple[Fixed, Fixed]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def counting(a: Fixed, b: Fixed) -> bool:
        tried.append((a, b))
        return True

    monkeypatch.setattr(multiply, "_int8_is_exact", counting)
    with multiply.products("int8"):
        for _ in range(2):
            a, b = pixels(9, 32), floats(32, 8)
            exact.product(a, b)
        assert len(tried) == 1
        for _ in range(2):
            exact.product(*change(pixels(9, 32), floats(32, 8)))
        assert len(tried) == 2


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "k", "n"), [(9, 32, 8), (2, 2, 2), (70, 5, 3), (3, 5, 70)])
def test_a_trial_passes_the_kernel_what_the_product_does(
    m: int, k: int, n: int, transposed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shapes and strides of the very operands, digits split before or after transposing."""
    seen: list[Any] = []

    def watching(a: Tensor, b: Tensor) -> Tensor:
        seen.append((a.shape, a.stride(), b.shape, b.stride()))
        return true_product(a, b)

    monkeypatch.setattr(torch, "_int_mm", watching)
    for split_first in (False, True):
        for a in (pixels(m, k), floats(m, k)):
            a, b = (floats(k, m).mT if transposed else a), floats(n, k).mT
            if split_first:
                original = floats(k, m)
                original.digits()
                a = original.mT
            seen.clear()
            with multiply.products("int8") as taken:
                exact.product(a, b)
            assert taken == {"int8": 1}
            half = len(seen) // 2
            assert seen and seen[:half] == seen[half:]
            multiply._ways.clear()


@pytest.mark.parametrize("shape", [(1, 64, 64), (64, 1, 64), (64, 64, 1), (0, 8, 8), (8, 0, 8)])
def test_operands_of_one_row_never_reach_the_kernel(
    shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "_int_mm", untouched_memory)
    monkeypatch.setattr(multiply, "_int8_is_exact", lambda a, b: True)
    m, k, n = shape
    a = exact.pixels(torch.full((m, k), 200, dtype=torch.uint8))
    b = Fixed(torch.full((k, n), 3.0), 1.0, 14)
    with multiply.products("int8") as taken:
        assert torch.equal(exact.product(a, b), torch.full((m, n), 600.0 * k).double())
    assert taken == {"float64": 1}


def test_the_last_piece_of_a_long_sum_is_tried_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """4,096 terms of 40 bits, then one, then two."""
    shapes = []

    def watching(a: Tensor, b: Tensor) -> Tensor:
        shapes.append(a.shape[1])
        return true_product(a, b)

    monkeypatch.setattr(torch, "_int_mm", watching)
    for k in (4097, 4098):
        a, b = floats(3, k, 20), floats(k, 3, 20)
        assert torch.equal(exact.product(a, b), oracle(a, b) * a.scale * b.scale)
        with multiply.products("int8"):
            assert torch.equal(exact.product(a, b), oracle(a, b) * a.scale * b.scale)
    assert set(shapes) == {4096, 2}


# --- float64 ----------------------------------------------------------------------------------


class Rounding(torch.overrides.TorchFunctionMode):
    """Float64 products with so many bits less, as an emulation may have; large ones alone."""

    def __init__(self, bits: int, larger_than: int = 0) -> None:
        self.bits, self.larger_than = bits, larger_than

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is not torch.Tensor.__matmul__ and func is not torch.Tensor.matmul:
            return found
        if found.dtype != torch.float64 or found.numel() <= self.larger_than:
            return found
        step = 2.0**self.bits
        return found.div(step).round().mul(step)


@pytest.mark.parametrize(("bits", "larger_than"), [(1, 0), (8, 0), (1, 10_000)])
def test_float64_products_that_round_are_refused(bits: int, larger_than: int) -> None:
    with (
        Rounding(bits, larger_than),
        pytest.raises(InexactError, match="float64 matrix products on cpu are not exact"),
    ):
        exact.product(floats(4, 4), floats(4, 4))


def test_exact_float64_products_are_tried_once() -> None:
    multiply.require_exact_float64(CPU)
    with Rounding(1):
        multiply.require_exact_float64(CPU)


@pytest.mark.parametrize("way", ["float64", "int8"])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_zeros_have_no_sign(k: int, way: str) -> None:
    """-0.0 comes of -1 * 0, and of rounding a small negative number."""
    a = torch.zeros(4, k).masked_fill(torch.eye(4, k) > 0, -0.0)
    negative = exact.Fixed(torch.full((k, 4), -1.0), 1.0, 14)
    with multiply.products(way):
        found = exact.product(exact.Fixed(a, 1.0, 14), negative)
    assert not found.any() and not found.signbit().any()
    for dim in (-1, -2):
        sums = exact.total(exact.Fixed(torch.full((3, 3), -0.0), 1.0, 14), dim)
        assert not sums.signbit().any()


# --- which one is faster ----------------------------------------------------------------------


def test_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {"_int8": 1.0, "_float64": 2.0}
    monkeypatch.setattr(multiply, "_seconds", lambda way, a, b: slow[way.__name__])
    monkeypatch.setattr(torch, "_int_mm", true_product)
    assert multiply.int8_is_faster(CPU)
    multiply.int8_is_faster.cache_clear()
    slow["_float64"] = 0.5
    assert not multiply.int8_is_faster(CPU)


def test_without_the_private_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "_int_mm")
    assert not multiply.int8_is_faster(CPU)
    a, b = pixels(40, 64), floats(64, 70)
    for way in ("auto", "int8"):
        with multiply.products(way) as taken:
            assert torch.equal(exact.product(a, b), oracle(a, b) * b.scale)
        assert taken == {"float64": 1}


# --- CUDA's rules, without CUDA ---------------------------------------------------------------


def as_cuda_does(a: Tensor, b: Tensor) -> Tensor:
    """`torch._int_mm` with what CUDA checks (aten/src/ATen/native/cuda/Blas.cpp), and cuBLASLt."""
    (m, k), n = a.shape, b.shape[1]
    if m <= 16:
        raise RuntimeError(f"self.size(0) needs to be greater than 16, but got {m}")
    if not k or k % 8 or not n or n % 8:
        raise RuntimeError(f"self.size(1) and mat2.size(1) need to be multiples of 8: {k}, {n}")
    for x in (a, b):
        lengths = sorted(x.stride())
        assert lengths[0] == 1 and lengths[1] % 8 == 0, "cuBLASLt would be silently wrong"
    return REAL(a, b)


@pytest.mark.parametrize("m", [2, 8, 16, 17, 24])
@pytest.mark.parametrize("k", [8, 12, 16])
@pytest.mark.parametrize("n", [2, 8, 10, 72])
@pytest.mark.parametrize("layout", ["plain", "left transposed", "right transposed"])
def test_operands_that_cuda_would_refuse_never_reach_it(
    m: int, k: int, n: int, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed, "on_host", lambda device: False)
    monkeypatch.setattr(torch, "_int_mm", as_cuda_does)
    for make in (pixels, floats):
        a = make(k, m).mT if layout == "left transposed" else make(m, k)
        b = floats(n, k).mT if layout == "right transposed" else floats(k, n)
        with multiply.products("int8"):
            assert torch.equal(exact.product(a, b), oracle(a, b) * a.scale * b.scale)


def test_cuda_takes_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "on_host", lambda device: False)
    monkeypatch.setattr(torch, "_int_mm", as_cuda_does)
    with multiply.products("int8") as taken:
        for a, b in (
            (pixels(256, 784), floats(784, 256)),
            (pixels(256, 784).mT, floats(256, 256)),
            (floats(256, 256), floats(256, 256).mT),
        ):
            exact.product(a, b)
    assert taken == {"int8": 3}
