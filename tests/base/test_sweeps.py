"""Sweeps in params.yaml: what is legal, and the one line that says what is not."""

from typing import Any

import pytest

from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.params.sweeps import Interval, SweepParams
from refashion.base.workspace import Workspace

RAW = params.read(Workspace.here().params_file)


def sweep(changes: Any = None, /, **space: Any) -> SweepParams:
    """A sweep of the MLP, as params.yaml has it."""
    raw = {"variant": "mlp", "space": space, **(changes or {})}
    return params.validate({**RAW, "sweeps": {"a": raw}}, "params.yaml").sweeps["a"]


def test_values_are_listed_or_in_a_range_or_in_an_interval() -> None:
    space = sweep(
        {"trials": 99},
        lr={"log": [0.01, 1]},
        momentum={"uniform": [0, 0.9]},
        weight_decay=[0, 1e-4],
        seed={"range": [0, 5, 2]},
        hidden=[[], [64], [64, 32]],
    ).space
    assert space == {
        "lr": Interval(low=0.01, high=1, log=True),
        "momentum": Interval(low=0, high=0.9, log=False),
        "weight_decay": (0.0, 1e-4),
        "seed": (0, 2, 4),
        "hidden": ((), (64,), (64, 32)),
    }


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({}, "a.space: is {}; it must be a mapping from settings to"),
        ({"width": [1]}, "'width' cannot be swept; lr, seed"),
        ({"lr": 0.1}, "lr is 0.1; it must be a list of values or"),
        ({"lr": []}, "lr is []; it must be"),
        ({"lr": ["a"]}, "lr: 'a' must be a number > 0"),
        ({"lr": [0.1, True]}, "lr: True must be"),
        ({"lr": [float("inf")]}, "lr: inf must be"),
        ({"lr": [0.1, 0.1]}, "lr: 0.1 stands there twice"),
        ({"lr": {"log": [1, 0.1]}}, "is empty; give the low bound first"),
        ({"lr": {"log": [float("nan"), 1]}}, "lr: nan must be"),
        ({"weight_decay": {"log": [0, 1]}}, "0.0 has no logarithm; use a low bound >= 1e-300"),
        ({"lr": {"log": [1e-310, 1]}}, "1e-310 has no logarithm; use a low bound >= 1e-300"),
        ({"momentum": {"uniform": [0, 1]}}, "momentum: 1 must be a number in [0, 1)"),
        ({"lr": {"log": [0.1, 1], "uniform": [0.1, 1]}}, "it must be a list of values or"),
        ({"seed": {"uniform": [0, 1]}}, "it must be a list of values or"),
        ({"seed": {"range": [0, 10**9]}}, "has more than 10000 values"),
        ({"seed": {"range": [0, 2**63]}}, "has more than 10000 values"),
        ({"seed": {"range": [10**30, 0, -1]}}, "has more than 10000 values"),
        ({"seed": [*range(10_001)]}, "has more than 10000 values"),
        ({"seed": {"range": [0, 3, 0]}}, "it must be a list of values or"),
        ({"seed": {"range": [3, 0]}}, "it must be a list of values or"),
        ({"seed": {"range": [0, True]}}, "it must be a list of values or"),
        ({"seed": {"range": [-1, 1]}}, "seed: -1 must be"),
        ({"dropout": [[0.1, 0.2]]}, "give one dropout for each hidden layer"),
        ({"hidden": [[8], [8, 8]], "dropout": [[0.1]]}, "give one dropout for each hidden layer"),
        ({"lr": {"log": [0.1, 1]}}, "trials is missing"),
        ({"lr": [0.1], "seed": {"range": [0, 10**4]}, "batch_size": [1, 2]}, "shorten the lists"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(space: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep(**space)
    text = str(caught.value)
    assert text.startswith("params.yaml: sweeps.a") and line in text and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"variant": "other"}, "sweeps.a.variant is other; it must be one of softmax, mlp"),
        ({"search": "luck"}, "it must be one of grid, random, tpe, halving"),
        ({"search": "tpe"}, "trials is missing"),
        ({"search": "halving", "space": {"epochs": [1]}}, "take epochs out"),
        ({"trials": 1}, "a grid of 2 settings, and trials is 1"),
        ({"trials": 10**9}, "it must be an integer from 1 to 10000"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        sweep(changes, lr=[0.1, 0.2])
    assert line in str(caught.value)


@pytest.mark.parametrize("name", ["mlp", "MLP", "k_fold", "a b", ""])
def test_a_sweep_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(UserError, match=r"choose another|no legal name"):
        params.validate(
            {**RAW, "sweeps": {name: {"variant": "mlp", "space": {"lr": [1]}}}}, "params.yaml"
        )
