"""Runs of a sweep as points: the settings that were swept, and what came of each choice of them."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean, stdev
from typing import Any

from refashion.runs.record import differing

DIVERGED = "diverged_in_epoch"
"""The metric that a run which diverged has, whatever it had before."""

NAMED = 5
"""Of the best runs, so many are named in a picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """Runs of a sweep that differ in their seeds alone."""

    runs: Sequence[str]  # their names
    settings: Mapping[str, Any]  # those swept, the same names for each point; None where missing
    metrics: Mapping[str, Sequence[float]]  # finite values, one for each run that has the metric
    curves: Mapping[str, Sequence[Sequence[float]]]  # histories' columns by epoch, a curve a run

    @property
    def label(self) -> str:
        """The settings on one line."""
        return joined(self.settings, short)

    @property
    def means(self) -> dict[str, float]:
        """Mean of each metric that all runs have, and with ``_std`` its standard deviation (n - 1).

        Of one run, its metrics, which may be means themselves.
        """
        if len(self.runs) == 1:
            return {name: value for name, (value,) in self.metrics.items()}
        complete = {name: v for name, v in self.metrics.items() if len(v) == len(self.runs)}
        several = {name: v for name, v in complete.items() if not name.endswith("_std")}
        spreads = {f"{name}_std": stdev(values) for name, values in several.items()}
        return {name: mean(values) for name, values in several.items()} | spreads


def text(value: Any) -> str:
    """A setting as text: strings as they are, None as none, all else as compact JSON."""
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def joined(settings: Mapping[str, Any], form: Callable[[Any], str] = text) -> str:
    """Settings on one line, their values in some form: ``hidden=[256] lr=0.1``."""
    return " ".join(f"{name}={form(value)}" for name, value in settings.items())


def rank(value: Any) -> tuple[Any, ...]:
    """What settings are sorted and told apart by: None, numbers, lists of numbers, other text."""
    if value is None:
        return (0,)
    if is_number(value):
        return 1, value
    if isinstance(value, list | tuple) and all(map(is_number, value)):
        return 2, len(value), *value
    return 3, text(value)


def usable(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Those metrics that are finite; of a run that diverged, in which epoch it did, and no more."""
    if DIVERGED in metrics:
        metrics = {DIVERGED: metrics[DIVERGED]}
    return {k: v for k, v in metrics.items() if v is not None and math.isfinite(v)}


def ranked(metrics: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    """Names of runs by validation accuracy, the best first, as sweeps choose; no diverged ones.

    Of equal accuracies the lower loss comes first, and of equal losses the first. None, if some
    other run has no validation accuracy.
    """
    quality = {}
    for name, of_run in metrics.items():
        values = usable(of_run)
        if "validation_accuracy" in values:
            loss = values.get("validation_loss", math.inf)
            quality[name] = (-values["validation_accuracy"], loss)
        elif DIVERGED not in values:
            return []
    return sorted(quality, key=quality.__getitem__)


def of(
    settings: Mapping[str, Mapping[str, Any]],
    metrics: Mapping[str, Mapping[str, float | None]],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
) -> tuple[list[Point], list[Point]]:
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
        Of all runs, sorted by `rank` of their settings.
    list of Point
        The first few of `ranked`, if there are several runs: each alone, with its seeds. Of those
        that differ in epochs alone, one.
    """
    names = differing(settings.values())
    seeds = [name for name in names if name.endswith("seed")]
    swept = sorted({*names} - {*seeds})

    def ranks(run: str, names: Iterable[str]) -> tuple[tuple[Any, ...], ...]:
        return tuple(rank(settings[run].get(name)) for name in names)

    def point(runs: Sequence[str], names: Iterable[str]) -> Point:
        return Point(
            runs=runs,
            settings={name: settings[runs[0]].get(name) for name in names},
            metrics=gather(usable(metrics.get(run, {})) for run in runs),
            curves=gather(curves.get(run, {}) for run in runs),
        )

    in_order = sorted(settings, key=lambda run: ranks(run, seeds))
    groups = gather({ranks(run, swept): run} for run in in_order)
    columns = dict(zip(swept, zip(*groups, strict=True), strict=True))
    for name in sorted(swept, key="hidden".__eq__):  # of two that are alike, hidden stays
        if any(_follows(columns[name], columns[other]) for other in swept if other != name):
            swept.remove(name)
    best: dict[Any, str] = {}
    for run in ranked(metrics) if len(metrics) > 1 else ():
        best.setdefault(ranks(run, [name for name in names if name != "epochs"]), run)
    by_rank = sorted(groups.values(), key=lambda runs: ranks(runs[0], swept))
    few = [*best.values()][:NAMED]
    return [point(runs, swept) for runs in by_rank], [point([run], [*swept, *seeds]) for run in few]


def _follows(values: Sequence[tuple[Any, ...]], others: Sequence[tuple[Any, ...]]) -> bool:
    """Whether each of the other setting's ranks, which are not all numbers, has one value here.

    Numbers that are as many as the others do not follow from them: chosen at random, they would.
    """
    distinct, pairs = len({*others}), len({*zip(others, values, strict=True)})
    numbers, of_numbers = ({kind for kind, *_ in ranks} == {1} for ranks in (values, others))
    return pairs == distinct and not of_numbers and not (numbers and len({*values}) == distinct)


def gather(rows: Iterable[Mapping[Any, Any]]) -> dict[Any, list[Any]]:
    """Values under each key, of all rows that have it."""
    values: dict[Any, list[Any]] = {}
    for key, value in chain.from_iterable(row.items() for row in rows):
        values.setdefault(key, []).append(value)
    return values


def is_number(value: Any) -> bool:
    """Whether a setting is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(value: Any) -> str:
    """A setting as a picture has it."""
    return f"{value:g}" if is_number(value) else f"{text(value):.24}"
