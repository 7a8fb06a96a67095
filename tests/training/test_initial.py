"""Where a training starts."""

import pytest
import torch

from refashion.portable import streams
from refashion.portable.streams import Purpose
from refashion.training import digest, initial
from refashion.training.settings import Settings

WIDTHS = (784, 256, 256, 10)


def test_weights_are_small_and_normal_and_biases_zero() -> None:
    weights = initial.weights(WIDTHS, 0)
    assert list(weights) == [f"layers.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
    for i in range(3):
        weight, bias = weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"]
        assert weight.dtype == bias.dtype == torch.float32
        assert weight.shape == WIDTHS[i : i + 2] and bias.shape == WIDTHS[i + 1 : i + 2]
        assert weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not bias.any() and not torch.signbit(bias).any()
    assert weights["layers.0.weight"][0, :10].ne(weights["layers.1.weight"][0, :10]).all()


def test_a_layer_does_not_depend_on_the_others() -> None:
    wide, narrow = initial.weights((784, 512, 10), 0), initial.weights((784, 512, 7, 10), 0)
    assert torch.equal(wide["layers.0.weight"], narrow["layers.0.weight"])


def test_seeds_differ() -> None:
    digests = {digest.weights(initial.weights(WIDTHS, seed)) for seed in (0, 1, 2, 2**63 - 1)}
    assert len(digests) == 4


def test_they_are_those_of_the_stream() -> None:
    numbers = streams.normal((784, 10), streams.key(3, Purpose.INITIAL, 0))
    want = (numbers * 0.01).to(torch.float32)
    assert torch.equal(initial.weights((784, 10), 3)["layers.0.weight"], want)


def test_settings_widths_and_plain_values() -> None:
    settings = Settings(
        hidden=(5, 6),
        dropout=(0.0, 0.5),
        lr=0.1,
        seed=1,
        epochs=2,
        batch_size=3,
        weight_decay=0.0,
        momentum=0.0,
        numerics="portable",
    )
    assert settings.widths == (784, 5, 6, 10)
    assert settings.as_dict()["hidden"] == [5, 6] and settings.as_dict()["dropout"] == [0.0, 0.5]
