"""Losses and their gradients by hand, against those of torch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from refashion.training.engine import batches
from refashion.training.losses import LOSSES, CrossEntropy, Loss, SquaredError

N = 23


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels(classes: int = 10) -> Tensor:
    return torch.arange(N) * 7 % classes


def seen(loss: Loss, outputs: Tensor, size: int = N) -> Tensor:
    """Gradients of all rows, looked at in batches of `size`."""
    found = [
        loss.gradient(rows, loss.forward(rows, outputs[..., rows, :].clone()))
        for rows in batches(outputs.shape[-2], size)
    ]
    return torch.cat(found, -2)


def torchs_gradient(loss: Tensor, outputs: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, outputs)
    return gradient


@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_cross_entropy_is_torchs(classes: int, scale: float) -> None:
    outputs = (normal(N, classes) * scale).requires_grad_()
    loss = CrossEntropy(labels(classes), classes)
    gradient = seen(loss, outputs.detach())
    want = functional.cross_entropy(outputs, labels(classes), reduction="sum")
    torch.testing.assert_close(gradient, torchs_gradient(want, outputs), rtol=0, atol=1e-11)
    assert loss.metrics().loss == pytest.approx(want.item() / N, rel=1e-7, abs=1e-11)


def test_accuracy_is_the_share_of_likeliest_classes() -> None:
    outputs = torch.zeros(N, 10, dtype=torch.float64)
    outputs[torch.arange(N), labels()] = 1.0
    outputs[:5] = -outputs[:5]
    loss = CrossEntropy(labels(), 10)
    seen(loss, outputs)
    assert loss.metrics().accuracy == (N - 5) / N


@pytest.mark.parametrize("size", [1e3, 1e300])
def test_cross_entropy_of_huge_logits_stays_finite(size: float) -> None:
    outputs = torch.tensor([[size, -size], [size, -size]], dtype=torch.float64)
    loss = CrossEntropy(torch.tensor([0, 0]), 2)
    assert seen(loss, outputs).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert loss.metrics().loss == 0.0
    wrong = CrossEntropy(torch.tensor([1, 1]), 2)
    assert seen(wrong, outputs).tolist() == [[1.0, -1.0], [1.0, -1.0]]
    assert wrong.metrics().loss == pytest.approx(2 * size, rel=1e-8)


@pytest.mark.parametrize("outputs_per_row", [1, 3])
def test_half_the_squared_error_is_torchs(outputs_per_row: int) -> None:
    outputs = normal(N, outputs_per_row).requires_grad_()
    targets = normal(N, outputs_per_row, seed=1)
    loss = SquaredError(targets, outputs_per_row)
    gradient = seen(loss, outputs.detach())
    want = functional.mse_loss(outputs, targets, reduction="sum") / 2
    torch.testing.assert_close(gradient, torchs_gradient(want, outputs))
    assert loss.metrics().loss == pytest.approx(want.item() / targets.numel(), rel=1e-8)
    assert math.isnan(loss.metrics().accuracy)


@pytest.mark.parametrize("name", LOSSES)
@given(size=st.integers(1, N + 1))
def test_pieces_give_the_same_as_all_at_once(name: str, size: int) -> None:
    targets = labels() if name == "cross_entropy" else normal(N, 10, seed=1)
    outputs = normal(N, 10) * 3
    whole, pieces = (LOSSES[name](targets, 10) for _ in range(2))
    assert torch.equal(seen(whole, outputs), seen(pieces, outputs, size))
    assert repr(whole.metrics()) == repr(
        pieces.metrics()
    )  # of equal bits; NaN is not equal to itself


@pytest.mark.parametrize("name", LOSSES)
def test_the_outputs_of_a_batch_may_change_afterwards(name: str) -> None:
    """The engines reuse memory: what was seen is kept apart from it."""
    targets = labels() if name == "cross_entropy" else normal(N, 10, seed=1)
    loss, outputs = LOSSES[name](targets, 10), normal(N, 10)
    loss.forward(slice(0, N), outputs)
    metrics = loss.metrics()
    outputs.fill_(77.0)
    assert repr(loss.metrics()) == repr(metrics)
