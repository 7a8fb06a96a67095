"""Where a training starts, scheme by scheme."""

import math

import pytest
import torch

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training import initial
from refashion.training.initial import Weights
from refashion.training.settings import Settings

SHAPES = [(600, 400), (400, 100), (100, 10)]
STDS = {
    "small_normal": lambda inputs, units: 0.01,
    "unit_normal": lambda inputs, units: 1.0,
    "xavier": lambda inputs, units: (2 / (inputs + units)) ** 0.5,
    "he": lambda inputs, units: (2 / inputs) ** 0.5,
}


def weights(scheme: str) -> Weights:
    settings = {"num_inputs": 600, "hidden": (400, 100)}
    return initial.of(Settings(**settings, seed=3, initialisation=scheme))


@pytest.mark.parametrize("scheme", initial.SCHEMES)
def test_schemes_scale_one_and_the_same_stream(scheme: str) -> None:
    for layer, shape in enumerate(SHAPES):
        weight, std = weights(scheme)[f"layers.{layer}.weight"], STDS[scheme](*shape)
        numbers = streams.normal(shape, streams.key(3, Purpose.INITIAL, layer)) * std
        torch.testing.assert_close(weight, numbers.to(torch.float32), rtol=1e-7, atol=0)
        # Five standard errors of a standard deviation, and of a mean.
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())


def test_constant_is_constant() -> None:
    for i in range(3):
        weight = weights("constant")[f"layers.{i}.weight"]
        assert weight.unique().tolist() == [pytest.approx(0.01)]


@pytest.mark.parametrize("scheme", ["constant", *initial.SCHEMES])
def test_shapes_types_and_biases_of_zero(scheme: str) -> None:
    start = weights(scheme)
    assert list(start) == [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    for i, shape in enumerate(SHAPES):
        weight, bias = start[f"layers.{i}.weight"], start[f"layers.{i}.bias"]
        assert weight.shape == shape and bias.shape == shape[1:]
        assert weight.dtype == bias.dtype == torch.float32
        assert weight.is_contiguous() and weight.any()
        assert not bias.any() and not torch.signbit(bias).any()
