"""Runs side by side: settings that differ, metrics, means over seeds and tests."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from refashion.base.errors import UserError
from refashion.evaluation import comparison
from refashion.pictures import points
from refashion.pictures.points import Point, gather, joined, text
from refashion.runs.record import differing
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
    best: list[Point]  # the best few runs by validation accuracy, if that is among their metrics
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
    names = differing(settings.values())
    shown = {name: {key: s.get(key) for key in names} for name, s in settings.items()}
    metrics = {name: run.metrics for name, run in by_name.items()}
    curves = {name: run.history for name, run in by_name.items() if run.has("history.csv")}
    summed_up, best = points.of(shown, metrics, curves)
    predictions = {n: run.predictions for n, run in by_name.items() if run.has("predictions.csv")}
    same = gather({text([run.name, settings[name]]): name} for name, run in by_name.items())
    notes = [
        f"{' and '.join(group)}: the same settings, data and seed gave different results, so there "
        "is no mean over seeds; `refashion diverge` finds the first epoch where they differ"
        for group in same.values()
        if len(group) > 1
    ]
    if diverged := [name for name, of_run in metrics.items() if points.DIVERGED in of_run]:
        named = textwrap.shorten(", ".join(diverged), 100, placeholder=" ...")
        notes.append(f"{len(diverged)} of {len(by_name)} runs diverged: {named}")
    if len(by_name) > MANY:
        notes.append(
            f"{len(by_name)} runs: tests of their pairs are in --json alone, and pictures show all "
            "together; name fewer runs to see them one by one."
        )
    return Comparison(
        runs=by_name,
        ids={name: ids[run] for name, run in by_name.items() if run in ids},
        settings=shown,
        shared={key: value for key, value in first.items() if key not in names},
        points=summed_up,
        best=best,
        seeds={
            _common(point.runs) or joined(point.settings): point
            for point in summed_up
            if 1 < len(point.runs) == len({text(settings[name]) for name in point.runs})
        },
        tests=comparison.compare(predictions),
        notes=notes,
    )


def _settings(run: Run) -> dict[str, Any]:
    """What determined a run, named as in params.yaml; its contract tells the engine."""
    settings = {**run.settings, "contract": run.record.contract}
    settings.pop("numerics", None)
    return settings


def _named(runs: Sequence[Run], ids: Mapping[Run, str]) -> dict[str, Run]:
    """Runs by name, with what sets namesakes apart: settings, or else the id."""
    namesakes = gather({run.name: _settings(run)} for run in runs)
    marks = {name: differing(settings) for name, settings in namesakes.items()}
    one_study = len({run.name.rpartition("/")[0] for run in runs}) == 1
    named = {}
    for run in runs:
        settings = _settings(run)
        mark = joined({key: settings.get(key) for key in marks[run.name]})
        if namesakes[run.name].count(settings) > 1:
            mark = ids.get(run, "")[:ID_LENGTH]
        name = run.name.rpartition("/")[2] if one_study else run.name
        named[f"{name} {mark}" if mark else name] = run
    return dict(sorted(named.items()))


def _common(names: Sequence[str]) -> str:
    """The words that all names have."""
    first, *others = (name.split() for name in names)
    return " ".join(word for word in first if all(word in other for other in others))
