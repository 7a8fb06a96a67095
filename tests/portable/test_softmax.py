"""Softmax and cross-entropy against torch's own in float64, for every option."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from matrices import random_floats
from refashion.portable.softmax import cross_entropy, log_softmax, softmax

REDUCTIONS = ("none", "mean", "sum")
NUM_ROWS, NUM_CLASSES = 40, 7


def logits(scale: float = 3.0, seed: int = 0) -> Tensor:
    return random_floats(NUM_ROWS, NUM_CLASSES, seed=seed) * scale


def classes() -> Tensor:
    return torch.arange(NUM_ROWS) * 5 % NUM_CLASSES


def distributions() -> Tensor:
    """Soft labels: one row with each class alone, the others spread out."""
    soft = torch.softmax(logits(seed=1), 1)
    soft[:NUM_CLASSES] = torch.eye(NUM_CLASSES, dtype=torch.float64)
    return soft


def weights() -> Tensor:
    weight = torch.linspace(0.1, 2.0, NUM_CLASSES, dtype=torch.float64)
    weight[3] = 0.0
    return weight


def theirs(o: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Loss and gradient by torch and autograd, in float64."""
    o = o.clone().requires_grad_()
    loss = nn.CrossEntropyLoss(**options)(o, target)
    (gradient,) = torch.autograd.grad(loss.sum(), o)
    return loss.detach(), gradient


def assert_agree(o: Tensor, target: Tensor, rtol: float = 1e-9, **options: Any) -> None:
    loss, gradient = cross_entropy(o, target, **options)
    want_loss, want_gradient = theirs(o, target, **options)
    assert loss.shape == want_loss.shape and gradient.shape == want_gradient.shape
    torch.testing.assert_close(loss, want_loss, rtol=rtol, atol=1e-11, equal_nan=True)
    size = want_gradient.abs().max().item()
    torch.testing.assert_close(gradient, want_gradient, rtol=0, atol=rtol * size)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_rows_are_as_torch_has_them(reduction: str) -> None:
    o = torch.zeros(0, 4, dtype=torch.float64)
    for target in (torch.zeros(0, dtype=torch.int64), o):
        loss, gradient = cross_entropy(o, target, reduction=reduction)
        expected = nn.functional.cross_entropy(o, target, reduction=reduction)
        torch.testing.assert_close(loss, expected, equal_nan=True)
        assert gradient.shape == (0, 4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, weights()], ids=["plain", "weighted"])
def test_every_option(reduction: str, weight: Tensor | None) -> None:
    options = {"reduction": reduction, "weight": weight}
    for ignored, option in ((-100, {}), (2, {"ignore_index": 2}), (-1, {"ignore_index": -1})):
        target = classes()
        target[::4] = ignored
        assert_agree(logits(), target, **options, **option)
    assert_agree(logits(), distributions(), **options)
    unnormalised = distributions() * torch.arange(NUM_ROWS, dtype=torch.float64)[:, None]
    assert_agree(logits(), unnormalised, **options)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 30.0, 1000.0, 1e4, 1e8])
def test_no_logit_is_too_large(scale: float, soft: bool, reduction: str) -> None:
    o = logits(seed=2).sign() * scale
    target = distributions() if soft else classes()
    loss, gradient = cross_entropy(o, target, reduction=reduction)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
    assert_agree(o, target, reduction=reduction)


def test_losses_worked_out_by_hand() -> None:
    """LogSumExp where the exponentials themselves overflow or vanish, or a class is ruled out."""
    o = torch.tensor([[1e3, -1e3, 0], [-1e4, -1e4, -1e4], [1e4, 0, 0], [0, -torch.inf, 0]])
    target = torch.tensor([1, 0, 0, 0])
    loss, gradient = cross_entropy(o.to(torch.float64), target, reduction="none")
    assert loss.tolist() == pytest.approx([2000, math.log(3), 0, math.log(2)], rel=1e-9)
    assert gradient[0].tolist() == [1, -1, 0] and gradient[2].tolist() == [0, 0, 0]
    assert gradient[3].tolist() == [-0.5, 0, 0.5]
    assert not torch.isfinite(cross_entropy(o[3:].to(torch.float64), torch.tensor([1]))[0])


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_so(poison: float) -> None:
    o = logits()
    o[3, 2] = poison
    loss, _ = cross_entropy(o, classes(), reduction="none")
    assert torch.isfinite(loss).logical_not().nonzero().flatten().tolist() == [3]
    for reduction in ("mean", "sum"):
        assert not torch.isfinite(cross_entropy(o, classes(), reduction=reduction)[0])


def test_nothing_but_ignored_rows() -> None:
    target = torch.full((NUM_ROWS,), -100)
    assert cross_entropy(logits(), target)[0].isnan()
    assert cross_entropy(logits(), target, reduction="sum")[0] == 0
    assert not cross_entropy(logits(), target, reduction="none")[1].any()


def test_mistakes_are_refused() -> None:
    o = logits()
    with pytest.raises(ValueError, match="reduction"):
        cross_entropy(o, classes(), reduction="average")
    for wrong in (-1, NUM_CLASSES):
        target = classes()
        target[5] = wrong
        with pytest.raises(ValueError, match="classes"):
            cross_entropy(o, target)
    with pytest.raises(ValueError, match="shape"):
        cross_entropy(o, distributions()[:, 1:])
    with pytest.raises(ValueError, match="4097 classes"):
        softmax(torch.zeros(1, 4097, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("k", [1, 2, 10, 4096])
def test_softmax(scale: float, k: int) -> None:
    o = random_floats(11, k, seed=k) * scale
    got = softmax(o)
    rounding = (k + 1) * 2.0**-41  # of the exponentials to their grid
    torch.testing.assert_close(got, torch.softmax(o, 1), rtol=0, atol=rounding)
    torch.testing.assert_close(log_softmax(o), torch.log_softmax(o, 1), rtol=1e-13, atol=rounding)
    torch.testing.assert_close(got.sum(1), torch.ones(11, dtype=torch.float64), rtol=0, atol=1e-12)


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), scale=st.sampled_from([1e-3, 1.0, 100.0]))
def test_the_order_of_rows_and_classes_does_not_matter(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    o, target = logits(scale, seed), distributions()
    rows = torch.randperm(NUM_ROWS, generator=generator)
    columns = torch.randperm(NUM_CLASSES, generator=generator)
    for reduction in REDUCTIONS:
        loss, gradient = cross_entropy(o, target, reduction=reduction)
        other, shuffled = cross_entropy(
            o[rows][:, columns], target[rows][:, columns], reduction=reduction
        )
        assert torch.equal(gradient[rows][:, columns], shuffled)
        assert torch.equal(loss[rows] if reduction == "none" else loss, other)
