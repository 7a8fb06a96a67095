"""Steps of the from-scratch optimizers, against ``torch.optim``."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refashion.training.optimizers import OPTIMIZERS
from refashion.training.settings import Settings

SETTINGS = Settings(lr=0.05)
SHAPES = ((6, 4), (4,), (4, 3), (3,))  # a weight and a bias in turn
STEPS = 50


def normal(shapes: tuple[tuple[int, ...], ...] = SHAPES, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def walked(
    settings: Settings,
    steps: int = STEPS,
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
) -> list[Tensor]:
    """Parameters after steps along random gradients."""
    parameters = normal(shapes)
    optimizer = OPTIMIZERS[settings.optimizer](settings, parameters, settings.weight_decay)
    for step in range(1, steps + 1):
        optimizer.step(normal(shapes, step))
    return parameters


def walked_by_torch(settings: Settings) -> list[Tensor]:
    parameters = [p.double().requires_grad_() for p in normal()]
    groups = [
        {"params": parameters[::2], "weight_decay": settings.weight_decay},
        {"params": parameters[1::2]},
    ]
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adam":
        optimizer = torch.optim.Adam(groups, lr=settings.lr)
    else:
        optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    for step in range(1, STEPS + 1):
        for parameter, gradient in zip(parameters, normal(seed=step), strict=True):
            parameter.grad = gradient.double()
        optimizer.step()
    return [p.detach().float() for p in parameters]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("name", "momentum"), [("sgd", 0.0), ("sgd", 0.9), ("adam", 0.0)], ids=lambda x: str(x)
)
def test_steps_are_torchs(name: str, momentum: float, weight_decay: float) -> None:
    settings = replace(SETTINGS, optimizer=name, momentum=momentum, weight_decay=weight_decay)
    got, want = walked(settings), walked_by_torch(settings)
    for own, reference, begin in zip(got, want, normal(), strict=True):
        assert own.dtype == torch.float32
        torch.testing.assert_close(own, reference, rtol=2e-5, atol=1e-5)
        assert (own - begin).abs().max() > 0.1  # it went somewhere


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_adam_bears_gradients_of_every_size(size: float) -> None:
    parameters = normal()
    optimizer = OPTIMIZERS["adam"](replace(SETTINGS, optimizer="adam"), parameters, 0.0)
    for step in range(3):
        optimizer.step([g * size for g in normal(seed=step)])
    assert all(torch.isfinite(p).all() for p in parameters)


def test_a_neighbour_without_weight_decay_is_left_alone() -> None:
    """Zero times an infinite weight is no number, and adding zero takes a zero's sign."""
    parameters = [torch.tensor([[[torch.inf]], [[-0.0]], [[1.0]]]), torch.zeros(3, 1, 1)]
    decay = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)[:, None, None]
    gradients = [torch.tensor([[[1.0]], [[-0.0]], [[0.0]]]), torch.zeros(3, 1, 1)]
    OPTIMIZERS["sgd"](Settings(lr=1.0), parameters, decay).step(gradients)
    assert parameters[0].flatten().tolist() == [torch.inf, 0.0, 0.5]
    assert not parameters[0][1].signbit()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_do_not_depend_on_the_threads(name: str) -> None:
    settings = replace(SETTINGS, optimizer=name, momentum=0.9, weight_decay=0.3)
    shapes = ((400, 300), (300,))  # enough that torch divides the work
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(walked(settings, 3, shapes))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one.view(torch.int32), two.view(torch.int32))
