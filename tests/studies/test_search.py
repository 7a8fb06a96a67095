"""Which trials a sweep makes."""

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refashion.base.params.sweeps import SweepParams
from refashion.studies.search import Assignment, grid, search


def sweep(search: str = "grid", trials: int | None = None, **space: Any) -> SweepParams:
    return SweepParams(variant="mlp", space=space, search=search, trials=trials)


def made(
    sweep: SweepParams, score: Any = lambda trial: trial["lr"], seed: int = 0
) -> list[list[Assignment]]:
    """The trials that a search makes at once, time after time."""
    rounds: list[list[Assignment]] = []

    def measure(trials: Sequence[Assignment]) -> list[float]:
        rounds.append(list(trials))
        return [score(trial) for trial in trials]

    search(sweep, 10, seed, measure)
    return rounds


def test_a_grid_has_every_combination_once() -> None:
    rates, decays = [0.3, 0.1], [0.0, 1e-3]
    (trials,) = made(sweep(lr=rates, weight_decay=decays, seed={"range": [0, 3]}))
    assert [tuple(t.values()) for t in trials] == list(product(rates, decays, range(3)))


@given(st.integers(1, 300), st.integers(1, 4), st.booleans())
def test_intervals_share_what_trials_a_grid_has(trials: int, seeds: int, log: bool) -> None:
    trials = max(trials, seeds)
    interval = {"log" if log else "uniform": [0.01, 0.9]}
    made = grid(sweep(trials=trials, lr=interval, momentum=interval, seed={"range": [0, seeds]}))
    rates = sorted({trial["lr"] for trial in made})
    n = math.isqrt(trials // seeds)
    assert len(rates) == n and len(made) == n * n * seeds <= trials
    assert rates[0] >= 0.01 and rates[-1] <= 0.9
    if n > 1:
        assert (rates[0], rates[-1]) == (0.01, 0.9)
        steps = [b / a if log else b - a for a, b in pairwise(rates)]
        assert max(steps) == pytest.approx(min(steps), rel=0.05 if n < 10 else 1)


def test_halving_trains_the_best_third_three_times_as_long() -> None:
    rates = [0.5, 0.1, 0.9, 0.3, 0.9, 0.7, 0.2, 0.4]
    rounds = made(
        SweepParams(variant="mlp", space={"lr": sorted(set(rates))}, search="halving", trials=99)
    )
    assert [[(t["lr"], t["epochs"]) for t in trials] for trials in rounds] == [
        [(lr, 1) for lr in sorted(set(rates))],
        [(lr, 3) for lr in (0.5, 0.7, 0.9)],
        [(0.9, 10)],
    ]


def test_of_equals_halving_keeps_the_first() -> None:
    rounds = made(sweep("halving", lr=[0.4, 0.3, 0.2, 0.1]), score=lambda trial: 0.5)
    assert [[t["lr"] for t in trials] for trials in rounds] == [
        [0.4, 0.3, 0.2, 0.1],
        [0.4, 0.3],
        [0.4],
    ]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_what_optuna_proposes_is_legal_and_follows_from_the_seed(kind: str) -> None:
    chosen = sweep(
        kind, 20, lr={"log": [0.011, 0.9999]}, weight_decay=[0.0, 1e-3], hidden=[[8], [4, 4]]
    )
    rounds = made(chosen)
    trials = [trial for one in rounds for trial in one]
    assert len(trials) == 20 and rounds == made(chosen)
    assert trials != [trial for one in made(chosen, seed=1) for trial in one]
    for trial in trials:
        assert 0.011 <= trial["lr"] <= 0.9999 and trial["weight_decay"] in (0.0, 1e-3)
        assert trial["hidden"] in ((8,), (4, 4))
        assert float(f"{trial['lr']:.3g}") == trial["lr"] or trial["lr"] in (0.011, 0.9999)


def test_tpe_learns_from_trials() -> None:
    def score(trial: Assignment) -> float:
        return -abs(math.log(trial["lr"] / 0.1))

    trials = [t for one in made(sweep("tpe", 64, lr={"log": [1e-4, 1.0]}), score) for t in one]
    first, last = trials[:16], trials[-16:]
    assert sum(map(score, last)) > sum(map(score, first)) / 2
