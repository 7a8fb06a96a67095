"""Runs side by side: settings that differ, metrics, means over seeds and tests."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from refashion.base.errors import UserError
from refashion.evaluation import comparison
from refashion.pictures.sweeps import Point, rank, text
from refashion.runs import record
from refashion.runs.run import Run

ID_LENGTH = 8
"""Characters of an id that are shown."""

MANY = 12
"""Of more runs, no table shows the tests of each pair, and no page the pictures of each run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Runs on one data set; each is named so that the others are told from it."""

    runs: dict[str, Run]  # by name, in alphabetical order
    ids: dict[str, str]  # MLflow's, by name, of the runs that it has
    settings: dict[str, dict[str, Any]]  # those that differ, by name; None where a run has none
    shared: dict[str, Any]  # settings that are the same for all runs
    points: list[Point]  # runs that differ in their seeds alone, summed up
    seeds: dict[str, Point]  # points of several runs, by name, if each run has its own seeds
    tests: dict[str, Any]  # `evaluation.comparison.compare` of the runs with predictions
    notes: list[str]  # what else the reader of the numbers should know

    def as_dict(self) -> dict[str, Any]:
        """All numbers as plain values, for JSON."""
        intervals = {name: [v["low"], v["high"]] for name, v in self.tests["variants"].items()}
        runs = {
            name: {
                "run": run.name,
                "run_id": self.ids.get(name),
                "settings": self.settings[name],
                "metrics": run.metrics,
                "accuracy_interval": intervals.get(name),
            }
            for name, run in self.runs.items()
        }
        seeds = {
            name: {"seeds": self.seeds_of(point), "metrics": point.means}
            for name, point in self.seeds.items()
        }
        return {
            "dataset": self.shared["data.dataset"],
            "runs": runs,
            "seeds": seeds,
            "pairs": self.tests["pairs"],
            "notes": self.notes,
        }

    def seeds_of(self, point: Point) -> list[int | None]:
        """The seed of each run of a point."""
        return [self.runs[name].settings.get("seed") for name in point.runs]


def of(runs: Iterable[Run], ids: Mapping[Run, str] | None = None) -> Comparison:
    """Set runs side by side: at least one, and MLflow's ids of those that it has.

    `UserError` if two are of different data sets or were measured on different test sets, or if a
    file is missing.
    """
    ids = ids or {}
    by_name = _named(list(runs), ids)
    settings = {name: _settings(run) for name, run in by_name.items()}
    datasets = {s["data.dataset"]: name for name, s in settings.items()}
    if len(datasets) > 1:
        raise UserError(
            f"{' and '.join(datasets.values())}: trained on different data sets, "
            f"{' and '.join(datasets)}; choose runs of one data set"
        )
    first, *_ = settings.values()
    differing = record.differing(settings.values())
    shown = {name: {key: s.get(key) for key in differing} for name, s in settings.items()}
    metrics = {name: run.metrics for name, run in by_name.items()}
    curves = {name: run.history for name, run in by_name.items() if run.has("history.csv")}
    summed_up = points(shown, metrics, curves)
    predictions = {n: run.predictions for n, run in by_name.items() if run.has("predictions.csv")}
    same = _gather({text([run.name, settings[name]]): name} for name, run in by_name.items())
    notes = [
        f"{' and '.join(group)}: the same settings, data and seed gave different results, so there "
        "is no mean over seeds; `refashion diverge` finds the first epoch where they differ"
        for group in same.values()
        if len(group) > 1
    ]
    if len(by_name) > MANY:
        notes.append(
            f"{len(by_name)} runs: tests of their pairs are in --json alone, and pictures show all "
            "together; name fewer runs to see them one by one."
        )
    return Comparison(
        runs=by_name,
        ids={name: ids[run] for name, run in by_name.items() if run in ids},
        settings=shown,
        shared={key: value for key, value in first.items() if key not in differing},
        points=summed_up,
        seeds={
            _common(point.runs) or point.label: point
            for point in summed_up
            if 1 < len(point.runs) == len({text(settings[name]) for name in point.runs})
        },
        tests=comparison.compare(predictions),
        notes=notes,
    )


def points(
    settings: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, float | None]],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[Point]:
    """Find which settings were swept, and sum up the runs that differ in their seeds alone.

    Swept are those that differ between the runs, but for seeds, whose names end so. What follows
    from another setting that is not a number is left out: the dropout of each network, beside
    ``hidden``.

    Parameters
    ----------
    settings, metrics, curves
        By the names of the runs: settings, final metrics, and values by epoch of each column of the
        history. Any run may lack what others have; a metric that is not finite counts as missing.

    Returns
    -------
    list of Point
        Sorted by `rank` of their settings.
    """
    differing = record.differing(settings.values())
    seeds = [name for name in differing if name.endswith("seed")]
    swept = sorted({*differing} - {*seeds})

    def ranks(run: str, names: Iterable[str]) -> tuple[tuple[Any, ...], ...]:
        return tuple(rank(settings[run].get(name)) for name in names)

    in_order = sorted(settings, key=lambda run: ranks(run, seeds))
    groups = _gather({ranks(run, swept): run} for run in in_order)
    columns = dict(zip(swept, zip(*groups, strict=True), strict=True))
    for name in sorted(swept, key="hidden".__eq__):  # of two that are alike, hidden stays
        if any(_follows(columns[name], columns[other]) for other in swept if other != name):
            swept.remove(name)
    return [
        Point(
            runs=runs,
            settings={name: settings[runs[0]].get(name) for name in swept},
            metrics=_gather(_finite(metrics.get(run, {})) for run in runs),
            curves=_gather(curves.get(run, {}) for run in runs),
        )
        for runs in sorted(groups.values(), key=lambda runs: ranks(runs[0], swept))
    ]


def _follows(values: Sequence[tuple[Any, ...]], others: Sequence[tuple[Any, ...]]) -> bool:
    """Whether each of the other setting's ranks, which are not all numbers, has one value here.

    Numbers that are as many as the others do not follow from them: chosen at random, they would.
    """
    distinct, pairs = len({*others}), len({*zip(others, values, strict=True)})
    numbers, of_numbers = ({kind for kind, *_ in ranks} == {1} for ranks in (values, others))
    return pairs == distinct and not of_numbers and not (numbers and len({*values}) == distinct)


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if v is not None and math.isfinite(v)}


def _gather(rows: Iterable[Mapping[Any, Any]]) -> dict[Any, list[Any]]:
    """Values under each key, of all rows that have it."""
    values: dict[Any, list[Any]] = {}
    for key, value in chain.from_iterable(row.items() for row in rows):
        values.setdefault(key, []).append(value)
    return values


def _settings(run: Run) -> dict[str, Any]:
    """What determined a run, named as in params.yaml; its contract tells the engine."""
    settings = {**run.settings, "contract": run.record.contract}
    settings.pop("numerics", None)
    return settings


def _named(runs: Sequence[Run], ids: Mapping[Run, str]) -> dict[str, Run]:
    """Runs by name, with what sets namesakes apart: settings, or else the id."""
    namesakes = _gather({run.name: _settings(run)} for run in runs)
    marks = {name: record.differing(settings) for name, settings in namesakes.items()}
    one_study = len({run.name.rpartition("/")[0] for run in runs}) == 1
    named = {}
    for run in runs:
        settings = _settings(run)
        words = [f"{key}={text(settings.get(key))}" for key in marks[run.name]]
        if namesakes[run.name].count(settings) > 1:
            words = [ids.get(run, "")[:ID_LENGTH]]
        name = run.name.rpartition("/")[2] if one_study else run.name
        named[" ".join([name, *words])] = run
    return dict(sorted(named.items()))


def _common(names: Sequence[str]) -> str:
    """The words that all names have."""
    first, *others = (name.split() for name in names)
    return " ".join(word for word in first if all(word in other for other in others))
