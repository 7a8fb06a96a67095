"""Drawings of a sweep: metrics against what was varied, and learning curves over each other."""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator

from refashion.pictures.figures import COLOURS, TRAIN, VALIDATION, WRONG, blank, heat_map, plain
from refashion.pictures.points import DIVERGED, Point, is_number, rank, short

SHADES = matplotlib.colormaps["viridis"]
STAR: dict[str, Any] = {
    **{"color": VALIDATION, "marker": "*", "ls": "", "mec": "0.1", "ms": 15, "zorder": 4}
}
CROSS: dict[str, Any] = {"color": WRONG, "marker": "x", "ls": "", "mew": 1.5, "zorder": 3}
FACTORS = {"lr": 1, "momentum": math.inf}
"""Settings whose axis is logarithmic if their values span another factor than 10."""

MOST_PANELS = 6
MANY = 100
"""More points than these are drawn small."""

LONGEST_LEGEND = 12
"""Of more points, a legend names some: the best, or else some evenly chosen."""


def draw(
    points: Sequence[Point], best: Sequence[Point], metrics: Mapping[str, str]
) -> dict[str, Figure]:
    """Draw a sweep.

    Each metric is drawn against the settings: as a heat map if two were swept on a grid, else in a
    panel for each of the first 6. Epochs, beside other settings, are told by colour, so that a
    short training is not taken for a bad one. Learning curves lie over each other in one more
    figure.

    Parameters
    ----------
    points
        At least one, sorted by `rank` of their settings.
    best
        Points of the runs to mark, the best first.
    metrics
        Names of the metrics to draw, and their headings.

    Returns
    -------
    dict
        By the name of the metric, and ``learning_curves``.
    """
    swept = list(points[0].settings)
    grid = math.prod(len({rank(point.settings[name]) for point in points}) for name in swept)
    on_grid = len(swept) == 2 and len(points) > grid / 2 and "epochs" not in swept
    by_settings = _heat_map if on_grid else _panels
    figures = {m: by_settings(points, best, m, heading) for m, heading in metrics.items() if swept}
    names = dict.fromkeys(chain.from_iterable(point.curves for point in points))
    columns = [name for name in names if name.startswith(("train_", "validation_", "test_"))][:4]
    return figures | ({"learning_curves": _curves(points, best, columns)} if columns else {})


def _panels(points: Sequence[Point], best: Sequence[Point], metric: str, heading: str) -> Figure:
    """Mean and spread of a metric by each setting; a line, if numbers of one setting were swept."""
    swept = list(points[0].settings)
    by_colour = "epochs" in swept and len(swept) > 1
    names = [name for name in swept if name != "epochs" or not by_colour][:MOST_PANELS]
    columns = 2 if len(names) == 4 else min(len(names), 3)
    rows = -(-len(names) // columns)
    figure = blank(max(4.2 * columns, 6.2), 4.2 * rows, f"{heading} by {', '.join(names)}")
    means = [point.means for point in points]
    y = np.array([of_point.get(metric, math.nan) for of_point in means])
    spread = np.array([of_point.get(f"{metric}_std", math.nan) for of_point in means])
    epochs = [rank(point.settings["epochs"] if by_colour else None) for point in points]
    shades = SHADES(np.linspace(0.85, 0, len({*epochs}))) if by_colour else [TRAIN]
    style: dict[str, Any] = {"ms": 5 if len(points) <= MANY else 3, "capsize": 3, "alpha": 0.8}
    lines: dict[str, Any] = {}
    for i, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, i)
        values = [point.settings[name] for point in points]
        numeric = all(map(is_number, values))
        x = np.array(values if numeric else _categories(axes.xaxis, values, tilt=90), float)
        style["fmt"] = "o-" if numeric and len(names) == 1 else "o"
        for length, shade in zip(sorted({*epochs}), shades, strict=True):
            shown = np.array([value == length for value in epochs]) & ~np.isnan(y)
            bars = axes.errorbar(x[shown], y[shown], spread[shown], color=shade, **style)
            lines |= {f"epochs={short(length[-1])}": bars} if by_colour else {}
        for place, point in zip(x, points, strict=True):
            if len(runs := point.metrics.get(metric, ())) > 1:
                axes.plot([place] * len(runs), runs, ".", color=TRAIN, ms=6, alpha=0.35)
        at_bottom = {"transform": axes.get_xaxis_transform(), "clip_on": False}
        lines |= _crosses(axes, points, metric, x, np.full(len(x), 0.02), **at_bottom)
        if best and metric in best[0].metrics:
            place = x[list(map(rank, values)).index(rank(best[0].settings[name]))]
            (star,) = axes.plot(place, best[0].metrics[metric], **STAR)
            lines[f"best: {best[0].runs[0]}"] = star
        axes.set(xlabel=name, ylabel=heading, xmargin=0.1)
        if numeric:
            _scale(axes, "x", values, FACTORS.get(name, 10))
        _scale(axes, "y", y.tolist(), _factor(metric))
    plain(*figure.axes)
    _legend(figure, lines)
    return figure


def _heat_map(points: Sequence[Point], best: Sequence[Point], metric: str, heading: str) -> Figure:
    """Mean of a metric by two settings, with its spread; across, the one with more numbers."""
    columns = {name: [point.settings[name] for point in points] for name in points[0].settings}
    up, across = sorted(columns, key=lambda name: len({*filter(is_number, columns[name])}))
    figure = blank(6.2, 4.4, f"{heading} by {', '.join(columns)}")
    axes = figure.subplots()
    x = np.array(_categories(axes.xaxis, columns[across], tilt=90))
    y = np.array(_categories(axes.yaxis, columns[up]))
    means, cells = np.full((max(y) + 1, max(x) + 1), np.nan), {}
    for i, j, point in zip(y, x, points, strict=True):
        if metric in point.means:
            middle, spread = point.means[metric], point.means.get(f"{metric}_std")
            means[i, j] = middle
            cells[i, j] = f"{middle:.3g}" + (f"\n± {spread:.1g}" if spread else "")
    logarithmic = 0 not in means and _spans(means.ravel().tolist(), _factor(metric))
    how = {"norm": LogNorm() if logarithmic else None, "origin": "lower", "aspect": "auto"}
    heat_map(axes, means, cells if means.size <= 64 else {}, heading, cmap=SHADES, **how)
    axes.set(xlabel=across, ylabel=up, facecolor="0.92")
    lines = _crosses(axes, points, metric, x, y)
    if best:
        place = [tuple(best[0].settings[n] == p.settings[n] for n in columns) for p in points]
        chosen = place.index((True, True))
        corner = x[chosen] - 0.5, y[chosen] - 0.5
        frame = Rectangle(corner, 1, 1, fill=False, ec=VALIDATION, lw=3, zorder=3, clip_on=False)
        lines[f"best: {best[0].runs[0]}"] = axes.add_patch(frame)
    _legend(figure, lines)
    return figure


def _curves(points: Sequence[Point], best: Sequence[Point], columns: Sequence[str]) -> Figure:
    """Means of the columns of the histories, with a band of one standard deviation.

    Of many points, the best runs are drawn in colours over all others in grey.
    """
    over_seeds = any(len(runs) > 1 for point in points for runs in point.curves.values())
    title = "learning curves" + ", mean ± standard deviation over seeds" * over_seeds
    rows = -(-len(columns) // 2)
    figure = blank(11.0, 3.1 * rows + 0.8, title)
    step = -(-len(points) // LONGEST_LEGEND)
    shades = SHADES(np.linspace(0, 0.9, len(points)))
    shown: list[tuple[str, Point, dict[str, Any]]] = [
        (point.label * (i % step == 0), point, {"color": shade, "lw": 1})
        for i, (point, shade) in enumerate(zip(points, shades, strict=True))
    ]
    if best and step > 1:
        behind = {"color": "0.6", "lw": 0.8, "ms": 2, "alpha": 0.5}
        shown = [("", point, behind) for point in points]
        for i, point in enumerate(best, start=1):
            style = {"color": COLOURS[i], "lw": 2, "zorder": 3 - i / len(COLOURS)}
            shown.append((f"{i}. {point.label}", point, style))
    diverged = sum(len(point.metrics.get(DIVERGED, ())) for point in points)
    lines: dict[str, Any] = {}
    marks: dict[str, Any] = {}
    for i, column in enumerate(columns, start=1):
        axes = figure.add_subplot(rows, min(len(columns), 2), i)
        ends = []  # of those that diverged
        for label, point, line in shown:
            curves = point.curves.get(column, ())
            y = np.array(list(zip(*curves, strict=False)), float)  # as far as the shortest goes
            if not len(y):
                continue
            y[~np.isfinite(y)] = np.nan
            x, middle = np.arange(1, len(y) + 1), y.mean(1)
            (lines[label],) = axes.plot(x, middle, ".-", **line)
            if len(curves) > 1:
                std = y.std(1, ddof=1)
                low, high, colour = middle - std, middle + std, line["color"]
                axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
            if DIVERGED in point.metrics:
                ends.append((x[-1], middle[-1]))
        if diverged:
            (cross,) = axes.plot([x for x, _ in ends], [y for _, y in ends], **CROSS)
            marks[f"diverged: {diverged}"] = cross
        if best and (curve := best[0].curves.get(column)):
            (marks[f"best: {best[0].runs[0]}"],) = axes.plot(len(curve[0]), curve[0][-1], **STAR)
        axes.set(xlabel="epoch", ylabel=column.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn = [y for line in axes.lines for y in np.asarray(line.get_ydata())]
        _scale(axes, "y", drawn, _factor(column))
    plain(*figure.axes)
    _legend(figure, lines | marks)
    return figure


def _crosses(
    axes: Axes, points: Sequence[Point], metric: str, x: np.ndarray, y: np.ndarray, **how: Any
) -> dict[str, Any]:
    """Mark the points that have no value with crosses; what a legend says of them."""
    missing = [metric not in point.means for point in points]
    if not any(missing):
        return {}
    diverged = all(DIVERGED in p.metrics for p, m in zip(points, missing, strict=True) if m)
    (line,) = axes.plot(x[missing], y[missing], **CROSS, **how)
    return {f"{'diverged' if diverged else 'no value'}: {sum(missing)} of {len(points)}": line}


def _legend(figure: Figure, lines: Mapping[str, Any]) -> None:
    """Put a legend below a figure; lines without a label are not in it."""
    labels = list(filter(None, lines))
    width = max(map(len, labels), default=0) + 8  # characters, the line included
    columns = max(1, int(12 * figure.get_figwidth()) // width)
    style: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "fontsize": 9}
    if labels:
        figure.legend([lines[n] for n in labels], labels, ncols=columns, **style)


def _categories(axis: Axis, values: Sequence[Any], tilt: int = 0) -> list[int]:
    """Places of values on an axis that names each of them, or of many some, tilted by degrees."""
    labels = dict(sorted((rank(value), short(value)) for value in values))
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


def _factor(metric: str) -> float:
    """What values of a metric must span for a logarithmic axis; accuracies never have one."""
    return math.inf if "accuracy" in metric else 20


def _scale(axes: Axes, name: str, values: Sequence[float], factor: float) -> None:
    """Make the axis "x" or "y" logarithmic, linear about 0, if the values span a factor."""
    if not _spans(values, factor):
        return
    axis, set_scale = getattr(axes, f"{name}axis"), getattr(axes, f"set_{name}scale")
    if 0 in values:
        set_scale("symlog", linthresh=min(value for value in values if value > 0))
    else:
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1,) if _spans(values, 1000) else (1, 3)))
        axis.set_minor_formatter("")
    axis.set_major_formatter("{x:g}")
