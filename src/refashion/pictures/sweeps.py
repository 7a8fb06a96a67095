"""Drawings of a sweep: metrics against what was varied, and learning curves over each other."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import mean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from refashion.pictures.figures import TRAIN, blank, heat_map, plain

COLOURS = matplotlib.colormaps["viridis"]
MOST_PANELS = 6
LONGEST_LEGEND = 12
"""Of more points, a legend names some, evenly chosen."""


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
        return " ".join(f"{name}={_short(value)}" for name, value in self.settings.items())

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


def rank(value: Any) -> tuple[Any, ...]:
    """What settings are sorted and told apart by: None, numbers, lists of numbers, other text."""
    if value is None:
        return (0,)
    if _is_number(value):
        return 1, value
    if isinstance(value, list | tuple) and all(map(_is_number, value)):
        return 2, len(value), *value
    return 3, text(value)


def draw(points: Sequence[Point], metrics: Mapping[str, str]) -> list[Figure]:
    """Draw a sweep.

    Each metric is drawn against the settings: as a heat map if two were swept on a grid, else in a
    panel for each of the first 6. Learning curves lie over each other in one more figure.

    Parameters
    ----------
    points
        At least one, sorted by `rank` of their settings.
    metrics
        Names of the metrics to draw, and their headings.
    """
    swept = list(points[0].settings)
    grid = math.prod(len({rank(point.settings[name]) for point in points}) for name in swept)
    by_settings = _heat_map if len(swept) == 2 and len(points) > grid / 2 else _panels
    title = f"by {', '.join(swept[:MOST_PANELS])}"
    figures = [by_settings(f"{h} {title}", points, m, h) for m, h in metrics.items() if swept]
    names = dict.fromkeys(chain.from_iterable(point.curves for point in points))
    columns = [name for name in names if name.startswith(("train_", "validation_", "test_"))][:4]
    return [*figures, _learning_curves(points, columns)] if columns else figures


def _panels(title: str, points: Sequence[Point], metric: str, heading: str) -> Figure:
    """Mean and spread of a metric by each setting; a line, if numbers of one setting were swept."""
    names = list(points[0].settings)[:MOST_PANELS]
    columns = min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = blank(max(4.2 * columns, 6.2), 4.2 * rows, title)
    y = [point.means.get(metric, math.nan) for point in points]
    spread = [point.means.get(f"{metric}_std", math.nan) for point in points]
    for i, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, i)
        values = [point.settings[name] for point in points]
        numeric = all(map(_is_number, values))
        x = values if numeric else _categories(axes.xaxis, values, tilt=90)
        line = "o-" if numeric and len(names) == 1 else "o"
        axes.errorbar(x, y, spread, fmt=line, color=TRAIN, ms=5, capsize=3)
        for position, point in zip(x, points, strict=True):
            runs = point.metrics.get(metric, ())
            axes.plot([position] * len(runs), runs, ".", color=TRAIN, ms=6, alpha=0.35)
        axes.set(xlabel=name, ylabel=heading, xmargin=0.1)
        if numeric:
            _scale(axes, "x", values, factor=1 if name == "lr" else 10)
        _scale(axes, "y", y)
        if missing := sum(map(math.isnan, y)):
            axes.set_title(f"{missing} of {len(points)} have no value", fontsize=8)
    plain(*figure.axes)
    return figure


def _heat_map(title: str, points: Sequence[Point], metric: str, heading: str) -> Figure:
    """Mean of a metric by two settings, with its spread; across, the one with more numbers."""
    columns = {name: [point.settings[name] for point in points] for name in points[0].settings}
    up, across = sorted(columns, key=lambda name: len({*filter(_is_number, columns[name])}))
    figure = blank(6.2, 4.2, title)
    axes = figure.subplots()
    x = _categories(axes.xaxis, columns[across], tilt=90)
    y = _categories(axes.yaxis, columns[up])
    means, cells = np.full((max(y) + 1, max(x) + 1), np.nan), {}
    for i, j, point in zip(y, x, points, strict=True):
        if metric in point.means:
            middle, spread = point.means[metric], point.means.get(f"{metric}_std")
            means[i, j] = middle
            cells[i, j] = f"{middle:.3g}" + (f"\n± {spread:.1g}" if spread else "")
    norm = LogNorm() if 0 not in means and _spans(means.ravel().tolist(), 20) else None
    texts = cells if means.size <= 64 else {}
    heat_map(axes, means, texts, heading, cmap=COLOURS, norm=norm, origin="lower", aspect="auto")
    axes.set(xlabel=across, ylabel=up, facecolor="0.92")
    return figure


def _learning_curves(points: Sequence[Point], columns: Sequence[str]) -> Figure:
    """Means of the columns of the histories, with a band of one standard deviation."""
    over_seeds = any(len(runs) > 1 for point in points for runs in point.curves.values())
    title = "learning curves" + ", mean ± standard deviation over seeds" * over_seeds
    rows = -(-len(columns) // 2)
    figure = blank(11.0, 3.1 * rows + 0.6, title)
    colours, lines = COLOURS(np.linspace(0, 0.9, len(points))), {}
    for i, column in enumerate(columns, start=1):
        axes = figure.add_subplot(rows, min(len(columns), 2), i)
        for point, colour in zip(points, colours, strict=True):
            curves = point.curves.get(column, ())
            y = np.array(list(zip(*curves, strict=False)), float)  # as far as the shortest goes
            if not len(y):
                continue
            y[~np.isfinite(y)] = np.nan
            x, middle = np.arange(1, len(y) + 1), y.mean(1)
            (lines[point.label],) = axes.plot(x, middle, ".-", color=colour, lw=1)
            if len(curves) > 1:
                std = y.std(1, ddof=1)
                axes.fill_between(x, middle - std, middle + std, color=colour, alpha=0.2, lw=0)
        axes.set(xlabel="epoch", ylabel=column.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _scale(axes, "y", [y for line in axes.lines for y in np.asarray(line.get_ydata())])
    plain(*figure.axes)
    labels = list(filter(None, lines))[:: -(-len(points) // LONGEST_LEGEND)]
    width = max(map(len, labels), default=0) + 8  # characters, the line included
    style: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 9}
    figure.legend([lines[n] for n in labels], labels, ncols=max(1, 130 // width), **style)
    return figure


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    return f"{value:g}" if _is_number(value) else f"{text(value):.24}"


def _categories(axis: Axis, values: Sequence[Any], tilt: int = 0) -> list[int]:
    """Places of values on an axis that names each of them, or of many some, tilted by degrees."""
    labels = dict(sorted((rank(value), _short(value)) for value in values))
    step = -(-len(labels) // 40)
    axis.set_ticks(range(0, len(labels), step), list(labels.values())[::step])
    if len(labels) > 6:
        axis.set_tick_params(rotation=tilt)
    return [list(labels).index(rank(value)) for value in values]


def _spans(values: Sequence[float], factor: float) -> bool:
    """Whether no value is negative and the positive ones, if any, span a factor."""
    positive = [value for value in values if 0 < value < math.inf]
    negative = any(value < 0 for value in values)
    return bool(positive) and not negative and max(positive) >= factor * min(positive)


def _scale(axes: Axes, name: str, values: Sequence[float], factor: float = 20) -> None:
    """Make the axis "x" or "y" logarithmic, linear about 0, if the values span a factor."""
    if not _spans(values, factor):
        return
    axis, set_scale = getattr(axes, f"{name}axis"), getattr(axes, f"set_{name}scale")
    if 0 in values:
        set_scale("symlog", linthresh=min(value for value in values if value > 0))
    else:
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_minor_formatter("")
    axis.set_major_formatter("{x:g}")
