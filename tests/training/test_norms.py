"""Sizes of weights, against ``torch.linalg``."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from refashion.training import norms

NORMS = {"l0": norms.l0, "l1": norms.l1, "l2": norms.l2, "linf": norms.linf}
ORDERS = {"l0": 0, "l1": 1, "l2": 2, "linf": math.inf}
STEPS = {"l0": 0.0, "l1": 2.0**-30, "l2": 2.0**-15, "linf": 0.0}
"""Of the grid that numbers are rounded to, relative to the largest magnitude."""


@given(
    values=npst.arrays(
        np.float32, npst.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-4, 4, width=32)
    )
)
def test_norms_of_any_layer(values: np.ndarray) -> None:
    weight = torch.from_numpy(values)
    found = {"layers.0.weight": weight, "layers.0.bias": torch.ones(weight.shape[1])}
    largest = max(float(weight.abs().max()), 2.0**-100)  # what is smaller counts as zero
    for name, norm in NORMS.items():
        want = float(torch.linalg.vector_norm(weight.double().flatten(), ORDERS[name]))
        error = STEPS[name] * largest * (math.sqrt if name == "l2" else float)(weight.numel())
        assert norm(found) == pytest.approx(want, rel=1e-12, abs=error)


def test_one_layer_of_zeros_beside_another() -> None:
    zeros = {"layers.0.weight": torch.zeros(3, 3)}
    assert [norm(zeros) for norm in NORMS.values()] == [0, 0, 0, 0]
    found = {**zeros, "layers.1.weight": torch.tensor([[3.0, -4.0]])}
    assert [norm(found) for norm in NORMS.values()] == [2, 7.0, 5.0, 4.0]


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_the_euclidean_norm_betrays_numbers_beyond_all_bounds(lost: float) -> None:
    weight = torch.tensor([[1.0, lost], [2.0, 3.0]])
    assert not math.isfinite(
        norms.l2({"layers.0.weight": torch.ones(1, 2), "layers.1.weight": weight})
    )
