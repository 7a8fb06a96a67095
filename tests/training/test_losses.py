"""Losses and their gradients by hand, against those of torch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from refashion.training.engine import Metrics
from refashion.training.losses import LOSSES

N = 23


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def labels(classes: int = 10) -> Tensor:
    return torch.arange(N) * 7 % classes


def applied(name: str, outputs: Tensor, targets: Tensor, size: int = N) -> tuple[Tensor, Metrics]:
    """Gradients and metrics of all rows, looked at in batches of `size`."""
    loss, metrics = LOSSES[name]
    pieces = map(loss, outputs.detach().split(size), targets.split(size))
    gradients, terms = map(torch.cat, zip(*pieces, strict=True))
    return gradients, metrics(terms)


@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_cross_entropy_is_torchs(classes: int, scale: float) -> None:
    outputs = (normal(N, classes) * scale).requires_grad_()
    gradients, metrics = applied("cross_entropy", outputs, labels(classes))
    want = functional.cross_entropy(outputs, labels(classes), reduction="sum")
    want.backward()
    torch.testing.assert_close(gradients, outputs.grad, rtol=0, atol=1e-11)
    assert metrics.loss == pytest.approx(want.item() / N, rel=1e-7, abs=1e-11)


@pytest.mark.parametrize("outputs_per_row", [1, 3])
def test_half_the_squared_error_is_torchs(outputs_per_row: int) -> None:
    outputs = normal(N, outputs_per_row).requires_grad_()
    targets = normal(N, outputs_per_row, seed=1)
    gradients, metrics = applied("squared", outputs, targets)
    want = functional.mse_loss(outputs, targets) / 2
    want.backward()
    torch.testing.assert_close(gradients / N, outputs.grad)
    assert metrics.loss == pytest.approx(want.item(), rel=1e-8)
    assert math.isnan(metrics.accuracy)


@pytest.mark.parametrize("name", LOSSES)
@given(size=st.integers(1, N + 1))
def test_pieces_give_the_same_as_all_at_once(name: str, size: int) -> None:
    targets = labels() if name == "cross_entropy" else normal(N, 10, seed=1)
    (whole, metrics), (pieces, others) = (
        applied(name, normal(N, 10) * 3, targets, rows) for rows in (N, size)
    )
    assert torch.equal(whole, pieces)
    assert repr(metrics) == repr(others)  # of equal bits; NaN is not equal to itself
