"""A margin lies beyond the bound: it lets more through, on the far side alone."""

import math

import pytest

from refashion.base.params import Threshold


@pytest.mark.parametrize(
    ("threshold", "accepted", "refused"),
    [
        (Threshold(at_least=0.75), [0.75, 1.0, math.inf], [0.7499, -math.inf]),
        (Threshold(at_least=0.75, margin=0.25), [0.5, 0.75, 1.25], [0.4999]),
        (Threshold(at_most=0.5), [0.5, 0.0, -math.inf], [0.5001, math.inf]),
        (Threshold(at_most=0.5, margin=0.25), [0.75, 0.5, 0.125], [0.7501]),
    ],
    ids=str,
)
def test_what_is_good_enough(
    threshold: Threshold, accepted: list[float], refused: list[float]
) -> None:
    assert all(threshold.admits(value) for value in accepted)
    assert not any(threshold.admits(value) for value in [*refused, math.nan])
