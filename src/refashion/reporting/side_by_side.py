"""Trainings side by side: what sets them apart, how good each is, and which is better."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import Any

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.evaluation import comparison, predictions
from refashion.tracking.results import Results
from refashion.tracking.runs import Published

ID_LENGTH = 8
"""Characters that tell one run's id from another's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One training."""

    results: Results
    """What it left."""

    settings: dict[str, Any]
    """What determined it, named as in params.yaml; the engine by its contract."""

    @property
    def run_id(self) -> str | None:
        """MLflow's id of its run; None: it is a workspace's."""
        return self.results.run_id if isinstance(self.results, Published) else None

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics on the whole test set."""
        return {k: v for k, v in self.results.metrics.items() if k != "per_class"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Seeds:
    """Trainings that differ in their seed alone, summed up."""

    seeds: list[int]
    """In rising order; their number is n."""

    mean: dict[str, float]
    """Of each metric."""

    standard_deviation: dict[str, float]
    """Of each metric, with n - 1 in the denominator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Trainings that were measured on the same test set."""

    dataset: str
    """Which all were trained on."""

    sides: dict[str, Side]
    """By name, in alphabetical order."""

    apart: list[str]
    """Settings that are not the same for all."""

    seeds: dict[str, Seeds]
    """By name: trainings that differ in their seed alone."""

    tested: dict[str, Any]
    """As `evaluation.comparison.compare` gives it."""

    notes: list[str]
    """What else the reader of the numbers should know."""

    def as_dict(self) -> dict[str, Any]:
        """Give all numbers as plain values, for JSON."""
        interval = {name: [v["low"], v["high"]] for name, v in self.tested["variants"].items()}
        runs = {
            name: {
                "variant": side.results.variant,
                "run_id": side.run_id,
                "settings": {key: side.settings.get(key) for key in self.apart},
                "metrics": side.metrics,
                "accuracy_interval": interval[name],
            }
            for name, side in self.sides.items()
        }
        seeds = {name: asdict(group) for name, group in self.seeds.items()}
        return {
            "dataset": self.dataset,
            "runs": runs,
            "seeds": seeds,
            "pairs": self.tested["pairs"],
            "notes": self.notes,
        }


def of(everything: Iterable[Results]) -> Comparison:
    """Set trainings side by side.

    Parameters
    ----------
    everything : iterable of Results
        At least one.

    Raises
    ------
    UserError
        If two are of different data sets or were measured on different test sets, or if a file
        is missing.
    """
    found = [Side(results=results, settings=_settings(results)) for results in everything]
    sides = dict(sorted(zip(_names(found), found, strict=True), key=lambda named: named[0]))
    seeds, notes = _over_seeds(sides)
    return Comparison(
        dataset=found[0].settings["data.dataset"],
        sides=sides,
        apart=_apart([side.settings for side in found]),
        seeds=seeds,
        tested=_test(sides),
        notes=notes,
    )


def text(value: Any) -> str:
    """Write a setting as people do."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _settings(results: Results) -> dict[str, Any]:
    record = results.record
    data = {f"data.{name}": value for name, value in results.data}
    return {**record["params"], "numerics": record["contract"], **data}


def _apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for own in settings for key in own)
    return [k for k in keys if any(own.get(k) != settings[0].get(k) for own in settings)]


def _names(sides: Sequence[Side]) -> list[str]:
    """Name trainings: by the variant, with what sets it apart, or else with the run's id."""
    names = []
    for side in sides:
        variant, own = side.results.variant, side.settings
        namesakes = [other.settings for other in sides if other.results.variant == variant]
        marks = [f"{key}={text(own.get(key))}" for key in _apart(namesakes)]
        if namesakes.count(own) > 1:
            marks = [(side.run_id or "")[:ID_LENGTH]]
        names.append(" ".join([variant, *marks]))
    return names


def _test(sides: Mapping[str, Side]) -> dict[str, Any]:
    """Put every pair to the test, unless a pair cannot be compared."""
    answers = {
        name: predictions.read(side.results.file(paths.predictions(side.results.variant)))
        for name, side in sides.items()
    }
    first, *others = sides
    for name in others:
        one, other = (sides[n].settings["data.dataset"] for n in (first, name))
        if one != other:
            raise UserError(
                f"{first} and {name}: trained on different data sets, {one} and {other}; "
                "choose runs of one data set"
            )
        if answers[first].actual != answers[name].actual:
            raise UserError(
                f"{first} and {name}: measured on different test sets; choose runs that were "
                "measured on the same, or measure again with `dvc repro`"
            )
    return comparison.compare(answers)


def _over_seeds(sides: Mapping[str, Side]) -> tuple[dict[str, Seeds], list[str]]:
    """Sum up the trainings that differ in their seed alone, and note where that cannot be done."""
    groups: defaultdict[str, dict[str, Side]] = defaultdict(dict)
    for name, side in sides.items():
        record = side.results.record
        alike = {k: record[k] for k in ("contract", "inputs", "variant")}
        alike["params"] = {**record["params"], "seed": None}
        groups[json.dumps(alike, sort_keys=True)][name] = side
    summed_up, firsts, notes = [], [], []
    for group in groups.values():
        times = Counter(side.settings["seed"] for side in group.values())
        for seed, n in times.items():
            if n > 1:
                same = [name for name, side in group.items() if side.settings["seed"] == seed]
                notes.append(
                    f"{' and '.join(same)}: the same settings, data and seed came out "
                    "differently, so there is no mean over seeds; `refashion diverge` says where "
                    "they part"
                )
        if len(times) == len(group) > 1:
            first = next(iter(group.values()))
            firsts.append(replace(first, settings={**first.settings, "seed": None}))
            summed_up.append(_sum_up(group.values()))
    return dict(zip(_names(firsts), summed_up, strict=True)), notes


def _sum_up(group: Iterable[Side]) -> Seeds:
    members = sorted(group, key=lambda side: side.settings["seed"])
    shared = [k for k in members[0].metrics if all(k in side.metrics for side in members)]
    columns = {k: [side.metrics[k] for side in members] for k in shared}
    return Seeds(
        seeds=[side.settings["seed"] for side in members],
        mean={metric: mean(column) for metric, column in columns.items()},
        standard_deviation={metric: stdev(column) for metric, column in columns.items()},
    )
