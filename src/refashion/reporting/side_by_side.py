"""Runs side by side: settings that differ, metrics, means over seeds and tests."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from statistics import mean, stdev
from typing import Any, TypeVar

from refashion.base.errors import UserError
from refashion.evaluation import comparison
from refashion.pictures.sweeps import Point, rank, text
from refashion.runs.run import Run

T = TypeVar("T")

ID_LENGTH = 8
"""Characters of an id that are shown."""

MANY = 12
"""Of more runs, no table shows the tests of each pair, and no page the pictures of each run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Runs that differ in their seed alone, summed up."""

    seeds: list[int]
    """In rising order."""

    metrics: dict[str, float]
    """Mean of each metric, and with ``_std`` its standard deviation (n - 1 in the denominator)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Runs on one data set; each is named so that the others are told from it."""

    dataset: str

    runs: dict[str, Run]
    """By name, in alphabetical order."""

    ids: dict[str, str]
    """MLflow's ids of the runs that it has, by name."""

    settings: dict[str, dict[str, Any]]
    """Those that differ between the runs, by name; None where a run has none."""

    shared: dict[str, Any]
    """Settings that are the same for all runs."""

    seeds: dict[str, Seeds]
    """Groups of runs that differ in their seed alone, by name."""

    tests: dict[str, Any]
    """`evaluation.comparison.compare` of the runs with predictions."""

    notes: list[str]
    """What else the reader of the numbers should know."""

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
        return {
            "dataset": self.dataset,
            "runs": runs,
            "seeds": {name: asdict(group) for name, group in self.seeds.items()},
            "pairs": self.tests["pairs"],
            "notes": self.notes,
        }


def of(runs: Iterable[Run], ids: Mapping[Run, str] | None = None) -> Comparison:
    """Set runs side by side: at least one, and MLflow's ids of those that it has.

    Raises
    ------
    UserError
        If two are of different data sets or were measured on different test sets, or if a file
        is missing.
    """
    runs, ids = list(runs), ids or {}
    names = _names([(run, _settings(run)) for run in runs], [ids.get(run) for run in runs])
    by_name = dict(sorted(zip(names, runs, strict=True)))
    settings = {name: _settings(run) for name, run in by_name.items()}
    first, *_ = settings.values()
    differing = _differing(list(settings.values()))
    seeds, notes = _over_seeds(by_name)
    if len(by_name) > MANY:
        notes.append(
            f"{len(by_name)} runs: tests of their pairs are in --json alone, and pictures show all "
            "together; name fewer runs to see them one by one."
        )
    return Comparison(
        dataset=_dataset(by_name),
        runs=by_name,
        ids={name: ids[run] for name, run in by_name.items() if run in ids},
        settings={name: {key: s.get(key) for key in differing} for name, s in settings.items()},
        shared={key: value for key, value in first.items() if key not in differing},
        seeds=seeds,
        tests=comparison.compare(
            {name: run.predictions for name, run in by_name.items() if run.has("predictions.csv")}
        ),
        notes=notes,
    )


def points(
    settings: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, float | None]],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[Point]:
    """Find which settings were swept, and sum up the runs that differ in their seeds alone.

    Swept are those that differ between the runs, but for seeds, whose names end so. A setting that
    is the same wherever another is, as what each network drops, is left out.

    Parameters
    ----------
    settings, metrics, curves
        By the names of the runs: settings, final metrics, and values by epoch of each column of the
        history. Any of them may lack what others have; what is not finite counts as missing.

    Returns
    -------
    list of Point
        Sorted by their settings.
    """
    differing = _differing(list(settings.values()))
    swept = sorted(name for name in differing if not name.endswith("seed"))
    groups: defaultdict[tuple[Any, ...], list[str]] = defaultdict(list)
    for run, own in settings.items():
        groups[tuple(rank(own.get(name)) for name in swept)].append(run)
    columns = dict(zip(swept, zip(*groups, strict=True), strict=True))
    for name in sorted(swept, key="hidden".__eq__):
        if any(_follows(columns[name], columns[other]) for other in swept if other != name):
            swept.remove(name)
    summed_up = [
        Point(
            settings={name: settings[runs[0]].get(name) for name in swept},
            metrics=_by_name([_finite(metrics[run]) for run in runs]),
            curves=_by_name([curves[run] for run in runs]),
        )
        for runs in groups.values()
    ]
    return sorted(summed_up, key=lambda point: [*map(rank, point.settings.values())])


def _follows(values: Sequence[tuple[Any, ...]], others: Sequence[tuple[Any, ...]]) -> bool:
    """Whether each of the others, which are not all numbers, has one value.

    Numbers that are as many as the others do not follow from them: chosen at random, they would.
    """
    distinct, pairs = len({*others}), len({*zip(others, values, strict=True)})
    numbers, of_numbers = ({kind for kind, *_ in ranks} == {1} for ranks in (values, others))
    return pairs == distinct and not of_numbers and not (numbers and len({*values}) == distinct)


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if v is not None and math.isfinite(v)}


def _by_name(rows: Sequence[Mapping[str, T]]) -> dict[str, list[T]]:
    """Values under each name, of all rows that have it."""
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: [row[name] for row in rows if name in row] for name in names}


def _settings(run: Run) -> dict[str, Any]:
    """What determined a run, named as in params.yaml; the engine by its contract."""
    return {**run.settings, "numerics": run.record.contract}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that are not the same for all."""
    keys = dict.fromkeys(chain.from_iterable(settings))
    return [key for key in keys if len({rank(s.get(key)) for s in settings}) > 1]


def _names(runs: Sequence[tuple[Run, Mapping[str, Any]]], ids: Sequence[str | None]) -> list[str]:
    """Name runs by their own names, with what sets namesakes apart: a setting, or else the id."""
    studies = {run.name.rpartition("/")[0] for run, _ in runs}
    names = []
    for (run, settings), run_id in zip(runs, ids, strict=True):
        namesakes = [other for namesake, other in runs if namesake.name == run.name]
        marks = [f"{key}={text(settings.get(key))}" for key in _differing(namesakes)]
        if namesakes.count(settings) > 1:
            marks = [(run_id or "")[:ID_LENGTH]]
        name = run.name.rpartition("/")[2] if len(studies) == 1 else run.name
        names.append(" ".join([name, *marks]))
    return names


def _dataset(runs: Mapping[str, Run]) -> str:
    """The data set of all runs; UserError if they have several."""
    (first, dataset), *others = ((name, run.record.data["dataset"]) for name, run in runs.items())
    for name, other in others:
        if other != dataset:
            raise UserError(
                f"{first} and {name}: trained on different data sets, {dataset} and {other}; "
                "choose runs of one data set"
            )
    return dataset


def _over_seeds(runs: Mapping[str, Run]) -> tuple[dict[str, Seeds], list[str]]:
    """Sum up the runs that differ in their seed alone, and note where that cannot be done."""
    groups: defaultdict[str, defaultdict[Any, dict[str, Run]]]
    groups = defaultdict(lambda: defaultdict(dict))
    for name, run in runs.items():
        record, seed = run.record, run.settings.get("seed")
        alike = [record.name, record.contract, record.inputs, {**record.params, "seed": None}]
        groups[json.dumps(alike, sort_keys=True)][seed][name] = run
    firsts, summed_up, notes = [], [], []
    for by_seed in groups.values():
        repeated = [same for same in by_seed.values() if len(same) > 1]
        notes += [
            f"{' and '.join(same)}: the same settings, data and seed gave different results, so "
            "there is no mean over seeds; `refashion diverge` finds the first epoch where they "
            "differ"
            for same in repeated
        ]
        if len(by_seed) > 1 and not repeated:
            group = {seed: run for seed in sorted(by_seed) for run in by_seed[seed].values()}
            first = group[min(group)]
            firsts.append((first, {**_settings(first), "seed": None}))
            metrics = _over_runs([run.metrics for run in group.values()])
            summed_up.append(Seeds(seeds=list(group), metrics=metrics))
    return dict(zip(_names(firsts, [None] * len(firsts)), summed_up, strict=True)), notes


def _over_runs(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean and standard deviation of each metric that all runs have."""
    metrics: dict[str, float] = {}
    for name in runs[0]:
        values = [run[name] for run in runs if name in run]
        if len(values) == len(runs) and not name.endswith("_std"):
            metrics |= {name: mean(values), f"{name}_std": stdev(values)}
    return metrics
