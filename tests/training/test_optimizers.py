"""Steps of the from-scratch optimizers at their edges; `test_engines.py` compares torch's."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from refashion.training.optimizers import OPTIMIZERS
from refashion.training.settings import Settings

SETTINGS = Settings(lr=0.05)
SHAPES = ((400, 300), (300,))  # a weight and a bias; enough that torch divides the work


def normal(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def walked(settings: Settings, size: float = 1.0) -> list[Tensor]:
    """Parameters after steps along random gradients."""
    parameters = normal()
    optimizer = OPTIMIZERS[settings.optimizer]([settings], parameters)
    for step in (1, 2, 3):
        optimizer.step([gradient * size for gradient in normal(step)])
    return parameters


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_adam_bears_gradients_of_every_size(size: float) -> None:
    parameters = walked(replace(SETTINGS, optimizer="adam"), size)
    assert all(torch.isfinite(p).all() for p in parameters)


def test_a_neighbour_without_weight_decay_is_left_alone() -> None:
    """Zero times an infinite weight is no number, and adding zero takes a zero's sign."""
    parameters = [torch.tensor([[[torch.inf]], [[-0.0]], [[1.0]]]), torch.zeros(3, 1, 1)]
    models = [Settings(lr=1.0, weight_decay=decay) for decay in (0.0, 0.0, 0.5)]
    gradients = [torch.tensor([[[1.0]], [[-0.0]], [[0.0]]]), torch.zeros(3, 1, 1)]
    OPTIMIZERS["sgd"](models, parameters).step(gradients)
    assert parameters[0].flatten().tolist() == [torch.inf, 0.0, 0.5]
    assert not parameters[0][1].signbit()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_do_not_depend_on_the_threads(name: str) -> None:
    settings = replace(SETTINGS, optimizer=name, momentum=0.9, weight_decay=0.3)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(walked(settings))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one.view(torch.int32), two.view(torch.int32))
