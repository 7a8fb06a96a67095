"""Runs side by side: what sets them apart, how good each is, and which is better."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from refashion.base.errors import UserError
from refashion.evaluation import comparison, predictions
from refashion.runs.run import Run

ID_LENGTH = 8
"""Characters that tell one run's id from another's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Runs that differ in their seed alone, summed up."""

    seeds: list[int]
    """In rising order; their number is n."""

    metrics: dict[str, float]
    """Mean of each metric, and with ``_std`` its standard deviation (n - 1 in the denominator)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Runs on one data set."""

    dataset: str

    runs: dict[str, Run]
    """By a name that tells them apart, in alphabetical order."""

    ids: dict[str, str]
    """MLflow's ids of those runs that it has, by the same names."""

    settings: dict[str, dict[str, Any]]
    """Those that are not the same for all runs, by the same names; None where a run has none."""

    seeds: dict[str, Seeds]
    """By name: runs that differ in their seed alone."""

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
    """Set runs side by side.

    Parameters
    ----------
    runs : iterable of Run
        At least one.
    ids : mapping, optional
        MLflow's id of each run that it has.

    Raises
    ------
    UserError
        If two are of different data sets or were measured on different test sets, or if a file
        is missing.
    """
    runs = list(runs)
    known = ids or {}
    names = _names([(run, _settings(run)) for run in runs], [known.get(run) for run in runs])
    by_name = dict(sorted(zip(names, runs, strict=True)))
    settings = {name: _settings(run) for name, run in by_name.items()}
    keys = _differing(list(settings.values()))
    seeds, notes = _over_seeds(by_name)
    return Comparison(
        dataset=_dataset(by_name),
        runs=by_name,
        ids={name: known[run] for name, run in by_name.items() if run in known},
        settings={name: {key: s.get(key) for key in keys} for name, s in settings.items()},
        seeds=seeds,
        tests=comparison.compare(
            {
                name: predictions.read(run.file("predictions.csv"))
                for name, run in by_name.items()
                if run.has("predictions.csv")
            }
        ),
        notes=notes,
    )


def text(value: Any) -> str:
    """Write a setting as people do."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _settings(run: Run) -> dict[str, Any]:
    """What determined a run, named as in params.yaml; the engine by its contract."""
    return {**run.settings, "numerics": run.record.contract}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for one in settings for key in one)
    return [k for k in keys if any(one.get(k) != settings[0].get(k) for one in settings)]


def _names(runs: Sequence[tuple[Run, Mapping[str, Any]]], ids: Sequence[str | None]) -> list[str]:
    """Name runs by their own names, with what sets namesakes apart: a setting, or else the id."""
    studies = {run.name.rpartition("/")[0] for run, _ in runs}
    names = []
    for (run, settings), run_id in zip(runs, ids, strict=True):
        namesakes = [other for one, other in runs if one.name == run.name]
        marks = [f"{key}={text(settings.get(key))}" for key in _differing(namesakes)]
        if namesakes.count(settings) > 1:
            marks = [(run_id or "")[:ID_LENGTH]]
        name = run.name.rpartition("/")[2] if len(studies) == 1 else run.name
        names.append(" ".join([name, *marks]))
    return names


def _dataset(runs: Mapping[str, Run]) -> str:
    first, *others = runs
    datasets = {name: run.record.data["dataset"] for name, run in runs.items()}
    for name in others:
        if datasets[name] != datasets[first]:
            raise UserError(
                f"{first} and {name}: trained on different data sets, {datasets[first]} and "
                f"{datasets[name]}; choose runs of one data set"
            )
    return datasets[first]


def _over_seeds(runs: Mapping[str, Run]) -> tuple[dict[str, Seeds], list[str]]:
    """Sum up the runs that differ in their seed alone, and note where that cannot be done."""
    groups: defaultdict[str, dict[str, Run]] = defaultdict(dict)
    for name, run in runs.items():
        record = run.record
        rest = {**record.params, "seed": None}
        alike = [record.name, record.contract, dict(record.inputs), rest]
        groups[json.dumps(alike, sort_keys=True)][name] = run
    summed_up, firsts, notes = [], [], []
    for group in groups.values():
        times = Counter(run.settings.get("seed") for run in group.values())
        for seed, n in times.items():
            if n > 1:
                same = [name for name, run in group.items() if run.settings.get("seed") == seed]
                notes.append(
                    f"{' and '.join(same)}: the same settings, data and seed gave different "
                    "results, so there is no mean over seeds; `refashion diverge` finds the first "
                    "epoch where they differ"
                )
        if len(times) == len(group) > 1:
            first = next(iter(group.values()))
            firsts.append((first, {**_settings(first), "seed": None}))
            summed_up.append(_sum_up(group.values()))
    return dict(zip(_names(firsts, [None] * len(firsts)), summed_up, strict=True)), notes


def _sum_up(runs: Iterable[Run]) -> Seeds:
    runs = sorted(runs, key=lambda run: run.settings["seed"])
    metrics: dict[str, float] = {}
    for name in runs[0].metrics:
        values = [run.metrics[name] for run in runs if name in run.metrics]
        if len(values) == len(runs) and not name.endswith("_std"):
            metrics |= {name: mean(values), f"{name}_std": stdev(values)}
    return Seeds(seeds=[run.settings["seed"] for run in runs], metrics=metrics)
