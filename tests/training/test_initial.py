"""Where a training starts, scheme by scheme."""

import math

import pytest
import torch

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training import digest, initial
from refashion.training.settings import Settings

WIDTHS = (600, 400, 100, 10)
STDS = {
    "small_normal": lambda inputs, units: 0.01,
    "unit_normal": lambda inputs, units: 1.0,
    "xavier": lambda inputs, units: (2 / (inputs + units)) ** 0.5,
    "he": lambda inputs, units: (2 / inputs) ** 0.5,
}


def test_every_scheme_is_tested() -> None:
    assert set(STDS) == set(initial.SCHEMES)


@pytest.mark.parametrize("scheme", STDS)
def test_schemes_scale_one_and_the_same_stream(scheme: str) -> None:
    weights = initial.weights(WIDTHS, 3, scheme)
    for layer, shape in enumerate([(600, 400), (400, 100), (100, 10)]):
        weight, std = weights[f"layers.{layer}.weight"], STDS[scheme](*shape)
        numbers = streams.normal(shape, streams.key(3, Purpose.INITIAL, layer)) * std
        torch.testing.assert_close(weight, numbers.to(torch.float32), rtol=1e-7, atol=0)
        # Five standard errors of a standard deviation, and of a mean.
        assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * weight.numel()))
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())


@pytest.mark.parametrize("seed", [0, 1])
def test_constant_is_constant(seed: int) -> None:
    weights = initial.weights(WIDTHS, seed, "constant")
    for i in range(3):
        assert weights[f"layers.{i}.weight"].unique().tolist() == [pytest.approx(0.01)]


@pytest.mark.parametrize("scheme", ["constant", *STDS])
def test_shapes_types_and_biases_of_zero(scheme: str) -> None:
    weights = initial.weights(WIDTHS, 5, scheme)
    assert list(weights) == [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    for i in range(3):
        weight, bias = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
        assert weight.shape == WIDTHS[i : i + 2] and bias.shape == WIDTHS[i + 1 : i + 2]
        assert weight.dtype == bias.dtype == torch.float32
        assert weight.is_contiguous() and weight.any()
        assert not bias.any() and not torch.signbit(bias).any()


def test_a_layer_does_not_depend_on_the_others() -> None:
    wide, narrow = initial.weights((784, 512, 10), 0), initial.weights((784, 512, 7, 10), 0)
    assert torch.equal(wide["layers.0.weight"], narrow["layers.0.weight"])


def test_settings_name_scheme_and_seed() -> None:
    starts = [
        Settings(hidden=(30,), seed=seed, initialisation=scheme)
        for seed in (0, 1, 2**63 - 1)
        for scheme in STDS
    ]
    digests = [digest.weights(initial.of(settings)) for settings in starts]
    assert len(set(digests)) == len(starts)
    assert digests[0] == digest.weights(initial.weights((784, 30, 10), 0))


def test_he_keeps_the_size_of_what_goes_through_a_deep_network() -> None:
    """What the schemes are for: signals neither die away nor blow up (book, 4.8)."""
    sizes = {}
    for scheme in ("small_normal", "unit_normal", "he"):
        h = streams.normal((300, 200), streams.key(0, Purpose.SELFTEST)).to(torch.float32)
        for weight in list(initial.weights((200,) * 9, 0, scheme).values())[::2]:
            h = torch.relu(h @ weight)
        sizes[scheme] = float(h.square().mean().sqrt())
    assert 0.2 < sizes["he"] < 5
    assert sizes["small_normal"] < 1e-5 and sizes["unit_normal"] > 1e5
