"""Which settings a sweep tries: on a grid, at random, by TPE, or by successive halving.

What is tried depends on the settings of the sweep and on what came of earlier trials alone, so
every machine tries the same.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import torch

from refashion.base.params.sweeps import Interval, SweepParams
from refashion.portable import functions

Assignment = Mapping[str, Any]
"""Values of the settings of one trial."""

Measure = Callable[[Sequence[Assignment]], Sequence[float]]
"""Makes trials at once, and gives the validation accuracy of each; 0 if it diverged."""

DIGITS = 3
"""Significant digits of a number from an interval: libraries may differ in its last bits."""

AT_ONCE = 8
"""Trials that TPE proposes before it learns of the first of them."""

REDUCTION = 3
"""Successive halving keeps one trial of so many, and trains it so many times as long."""


def search(sweep: SweepParams, epochs: int, seed: int, measure: Measure) -> None:
    """Make the trials of a sweep.

    `epochs` are those of a whole training; `seed` is that of proposals at random.
    """
    if sweep.search == "grid":
        measure(grid(sweep))
    elif sweep.search == "halving":
        _halving(sweep, epochs, measure)
    else:
        _by_optuna(sweep, seed, measure)


def grid(sweep: SweepParams) -> list[Assignment]:
    """All combinations of the values; an interval has as many as the number of trials allows."""
    intervals = len(sweep.space) - len(sweep.choices)
    points = 1
    while intervals and sweep.num_choices * math.prod([points + 1] * intervals) <= (
        sweep.trials or 0
    ):
        points += 1
    axes = [
        _spread(values, points) if isinstance(values, Interval) else values
        for values in sweep.space.values()
    ]
    return [dict(zip(sweep.space, values, strict=True)) for values in product(*axes)]


def _halving(sweep: SweepParams, epochs: int, measure: Measure) -> None:
    """Successive halving (Jamieson and Talwalkar 2016) on a grid: few epochs, then more for few.

    Of 10 epochs: one for all, three for the best third, ten for the best ninth.
    """
    trials = grid(sweep)
    rungs = [epochs]
    while rungs[0] >= REDUCTION:
        rungs.insert(0, rungs[0] // REDUCTION)
    for rung in rungs:
        accuracies = measure([{**trial, "epochs": rung} for trial in trials])
        best = sorted(range(len(trials)), key=lambda i: -accuracies[i])  # the first of equals
        trials = [trials[i] for i in sorted(best[: -(-len(trials) // REDUCTION)])]


def _by_optuna(sweep: SweepParams, seed: int, measure: Measure) -> None:
    """At random, or by the tree-structured Parzen estimator (Bergstra et al. 2011)."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    assert sweep.trials
    samplers = optuna.samplers
    at_random = sweep.search == "random"
    sampler = samplers.RandomSampler if at_random else samplers.TPESampler
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed % 2**32))
    size = sweep.trials if at_random else AT_ONCE
    for first in range(0, sweep.trials, size):
        asked = [study.ask() for _ in range(sweep.trials)[first : first + size]]
        accuracies = measure([_proposed(sweep, trial) for trial in asked])
        for trial, accuracy in zip(asked, accuracies, strict=True):
            study.tell(trial, accuracy)


def _proposed(sweep: SweepParams, trial: Any) -> Assignment:
    """The values that Optuna proposes; of a list, by their numbers."""
    values = {}
    for name, legal in sweep.space.items():
        if isinstance(legal, Interval):
            number = trial.suggest_float(name, legal.low, legal.high, log=legal.log)
            values[name] = _rounded(number, legal)
        else:
            values[name] = legal[trial.suggest_categorical(name, range(len(legal)))]
    return values


def _spread(interval: Interval, points: int) -> list[float]:
    """So many numbers of an interval, evenly spread; one is its middle."""
    ends = torch.tensor([interval.low, interval.high], dtype=torch.float64)
    low, high = functions.log(ends) if interval.log else ends
    shares = [i / (points - 1) for i in range(points)] if points > 1 else [0.5]
    numbers = low + (high - low) * torch.tensor(shares, dtype=torch.float64)
    numbers = functions.exp(numbers) if interval.log else numbers
    return list(dict.fromkeys(_rounded(number, interval) for number in numbers.tolist()))


def _rounded(number: float, interval: Interval) -> float:
    return min(max(float(f"{number:.{DIGITS}g}"), interval.low), interval.high)
