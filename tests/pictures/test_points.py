"""Runs of a sweep are summed up to points, and the best are those that a sweep would choose."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from refashion.pictures.points import DIVERGED, Point, of, rank, ranked, usable

VALUES = {
    "batch_size": st.just(256),
    "data.seed": st.integers(0, 2),
    "dropout": st.sampled_from([[], [0.5], None]),
    "hidden": st.sampled_from([[], [16], [16, 16]]),
    "lr": st.sampled_from([0.1, 1, 1.0]),
    "optimizer": st.sampled_from(["adam", "sgd"]),
    "seed": st.integers(0, 3),
}
SWEEPS = st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=12)


def points(runs: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Points of runs whose metric is their number."""
    settings = {f"run {i}": run for i, run in enumerate(runs)}
    metrics = {name: {"number": i} for i, name in enumerate(settings)}
    curves = {name: {"number": [i, i]} for i, name in enumerate(settings)}
    return of(settings, metrics, curves)[0]


@given(SWEEPS)
def test_each_run_is_in_one_point_with_those_that_differ_in_seeds(runs: list[dict]) -> None:
    of_sweep = points(runs)
    groups = [point.metrics["number"] for point in of_sweep]
    assert sorted(number for group in groups for number in group) == list(range(len(runs)))
    assert [point.curves["number"] for point in of_sweep] == [[[i, i] for i in g] for g in groups]
    names = VALUES.keys() - {"data.seed", "seed"}
    same = [{tuple(rank(runs[i].get(name)) for name in names) for i in group} for group in groups]
    assert all(len(settings) == 1 for settings in same)
    assert len(set.union(*same)) == len(groups)


@given(SWEEPS)
def test_swept_settings_tell_points_apart_in_their_order(runs: list[dict]) -> None:
    of_sweep = points(runs)
    ranks = [[*map(rank, point.settings.values())] for point in of_sweep]
    assert all(a < b for a, b in pairwise(ranks))
    names = {tuple(point.settings) for point in of_sweep}
    assert len(names) == 1 and not {"seed", "data.seed"}.intersection(*names)
    assert [p.settings for p in points(runs[::-1])] == [p.settings for p in of_sweep]


def swept(*runs: tuple[Any, ...], names: Sequence[str]) -> list[str]:
    return list(points([dict(zip(names, run, strict=True)) for run in runs])[0].settings)


def test_what_follows_from_another_setting_was_not_swept() -> None:
    variants = ([], [], 0.1), ([0.0], [256], 0.1), ([0.2, 0.5], [256, 256], 0.5)
    assert swept(*variants, names=["dropout", "hidden", "lr"]) == ["hidden"]
    by_rate = [(*variant[:2], lr) for variant, lr in product(variants, (0.1, 0.5))]
    assert swept(*by_rate, names=["dropout", "hidden", "lr"]) == ["hidden", "lr"]
    at_random = [([37], 0.12, 0.9), ([112], 0.034, 0.5), ([64], 0.5, 0.7)]
    names = ["hidden", "lr", "momentum"]
    assert swept(*at_random, names=names) == names


def test_what_is_not_finite_is_missing() -> None:
    metrics = {str(i): {"loss": loss} for i, loss in enumerate((math.nan, None, math.inf, 0.5))}
    metrics["no loss"] = {}
    (point,), _ = of({name: {} for name in metrics}, metrics, {})
    assert (point.metrics, point.curves) == ({"loss": [0.5]}, {})


# --- the best ------------------------------------------------------------------------------------

METRICS = st.fixed_dictionaries(
    {},
    optional={
        "validation_accuracy": st.sampled_from([0.5, 0.75, math.nan]),
        "validation_loss": st.sampled_from([1.0, 2.0, math.inf]),
        DIVERGED: st.just(3),
    },
)


@given(st.lists(METRICS, max_size=8))
def test_the_best_has_no_better(metrics: list[dict[str, float]]) -> None:
    """As `max` finds it: of equals, the first."""
    runs = {str(i): usable(of_run) for i, of_run in enumerate(metrics)}
    left = {name: m for name, m in runs.items() if "validation_accuracy" in m}

    def quality(name: str) -> tuple[float, float]:
        return left[name]["validation_accuracy"], -left[name].get("validation_loss", math.inf)

    others = [m for name, m in runs.items() if name not in left]
    order = ranked(dict(zip(runs, metrics, strict=True)))
    assert sorted(order, key=int) == (list(left) if all(DIVERGED in m for m in others) else [])
    for name in order:
        assert name == max(left, key=quality)
        del left[name]


def test_a_run_that_diverged_has_no_other_metric() -> None:
    assert usable({"validation_accuracy": 0.9, DIVERGED: 4}) == {DIVERGED: 4}


def test_the_best_few_have_their_seeds_and_are_not_the_same_with_fewer_epochs() -> None:
    tried = [(lr, seed, n) for n in (1, 3) for lr in (0.1, 0.2, 0.3, 0.4) for seed in (0, 1)]
    settings = {str(t): dict(zip(("lr", "seed", "epochs"), t, strict=True)) for t in tried}
    metrics = {str(t): {"validation_accuracy": t[0] + t[1] / 100 + t[2] / 1000} for t in tried}
    _, found = of(settings, metrics, {})
    assert [point.settings for point in found] == [
        {"epochs": 3, "lr": lr, "seed": seed}
        for lr, seed in [(0.4, 1), (0.4, 0), (0.3, 1), (0.3, 0), (0.2, 1)]
    ]
    alone, of_run = {"run": settings["(0.1, 0, 1)"]}, {"run": metrics["(0.1, 0, 1)"]}
    assert of(alone, of_run, {})[1] == []
