"""A digest names the weights: all of them, and nothing else."""

import hashlib
import struct

import pytest
import torch

from refashion.training import digest

WEIGHTS = {"b": torch.tensor([1.0, -2.5]), "a": torch.tensor([[0.5], [0.0]])}


def test_it_is_the_sha256_of_names_shapes_and_bytes() -> None:
    text = b"a [2, 1]\n" + struct.pack("<2f", 0.5, 0.0) + b"b [2]\n" + struct.pack("<2f", 1, -2.5)
    assert digest.weights(WEIGHTS) == hashlib.sha256(text).hexdigest()


def test_neither_the_order_of_names_nor_the_layout_in_memory_matters() -> None:
    assert digest.weights(dict(reversed(WEIGHTS.items()))) == digest.weights(WEIGHTS)
    square = torch.arange(6.0).view(2, 3)
    strided = square.mT.contiguous().mT
    assert not strided.is_contiguous()
    assert digest.weights({"a": strided}) == digest.weights({"a": square})


@pytest.mark.parametrize(
    "other",
    [
        WEIGHTS | {"b": torch.tensor([1.0, -2.5000002])},
        WEIGHTS | {"a": torch.tensor([[0.5], [-0.0]])},
        WEIGHTS | {"a": torch.tensor([[0.5, 0.0]])},
        {"b": WEIGHTS["b"], "c": WEIGHTS["a"]},
        {"b": WEIGHTS["b"]},
        WEIGHTS | {"c": torch.empty(0)},
    ],
    ids=["one ulp", "the sign of zero", "a shape", "a name", "one less", "one more"],
)
def test_everything_else_does(other: dict[str, torch.Tensor]) -> None:
    assert digest.weights(other) != digest.weights(WEIGHTS)


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match="a: weights must be float32"):
        digest.weights({"a": torch.zeros(1, dtype=torch.float64)})
