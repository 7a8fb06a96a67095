"""Where the weights start, scheme by scheme."""

import math

import pytest
import torch

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training import digest, initial

WIDTHS = (600, 400, 100, 10)
DEVIATIONS = {
    "small_normal": lambda inputs, units: 0.01,
    "unit_normal": lambda inputs, units: 1.0,
    "xavier": lambda inputs, units: (2 / (inputs + units)) ** 0.5,
    "he": lambda inputs, units: (2 / inputs) ** 0.5,
}


def test_every_scheme_is_tested() -> None:
    assert set(DEVIATIONS) == set(initial.SCHEMES)


@pytest.mark.parametrize("scheme", initial.SCHEMES)
def test_standard_deviations(scheme: str) -> None:
    weights = initial.weights(WIDTHS, 0, scheme)
    for i in range(3):
        weight = weights[f"layers.{i}.weight"]
        want = DEVIATIONS[scheme](*weight.shape)
        # Five standard errors of a standard deviation, and of a mean.
        assert weight.std().item() == pytest.approx(want, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 5 * want / math.sqrt(weight.numel())


@pytest.mark.parametrize("scheme", initial.SCHEMES)
def test_schemes_scale_one_and_the_same_stream(scheme: str) -> None:
    for layer, shape in enumerate([(600, 400), (400, 100), (100, 10)]):
        numbers = streams.normal(shape, streams.key(3, Purpose.INITIAL, layer))
        got = initial.weights(WIDTHS, 3, scheme)[f"layers.{layer}.weight"]
        want = (numbers * DEVIATIONS[scheme](*shape)).to(torch.float32)
        torch.testing.assert_close(got, want, rtol=1e-7, atol=0)


def test_small_normal_is_what_it_was_before_there_were_schemes() -> None:
    named = initial.weights((784, 10), 0, "small_normal")
    assert digest.weights(named) == digest.weights(initial.weights((784, 10), 0))
    numbers = streams.normal((784, 10), streams.key(0, Purpose.INITIAL, 0))
    assert torch.equal(named["layers.0.weight"], (numbers * 0.01).to(torch.float32))


def test_constant_is_constant() -> None:
    for seed in (0, 1):
        weights = initial.weights(WIDTHS, seed, "constant")
        for i in range(3):
            weight = weights[f"layers.{i}.weight"]
            assert weight.shape == WIDTHS[i : i + 2]
            assert weight.unique().tolist() == [pytest.approx(0.01)]


@pytest.mark.parametrize("scheme", ["constant", *initial.SCHEMES])
def test_biases_are_zero_and_all_is_float32(scheme: str) -> None:
    weights = initial.weights(WIDTHS, 5, scheme)
    for name, tensor in weights.items():
        assert tensor.dtype == torch.float32 and tensor.is_contiguous()
        assert tensor.any() == name.endswith("weight")


def test_he_keeps_the_size_of_what_goes_through_a_deep_network() -> None:
    """What the schemes are for: signals neither die away nor blow up (book, 4.8)."""
    widths = (200,) * 9
    sizes = {}
    for scheme in ("small_normal", "unit_normal", "he"):
        h = streams.normal((300, 200), streams.key(0, Purpose.SELFTEST)).to(torch.float32)
        for i in range(8):
            h = torch.relu(h @ initial.weights(widths, 0, scheme)[f"layers.{i}.weight"])
        sizes[scheme] = float(h.square().mean().sqrt())
    assert 0.2 < sizes["he"] < 5
    assert sizes["small_normal"] < 1e-5 and sizes["unit_normal"] > 1e5
