"""Drawings of the studies, from their runs."""

from collections.abc import Callable, Sequence
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refashion.pictures.figures import TRAIN, VALIDATION, blank, plain
from refashion.runs.run import Run

COLOURS = ("#1f5fa8", "#e0802b", "#3c8d40", "#c22f2f", "#7b52ab", "#4a4a4a", "#b8860b", "#2a9d9d")
SCHEMES = {
    "constant": "constant 0.01",
    "small_normal": "N(0, 0.01)",
    "unit_normal": "N(0, 1)",
    "xavier": "Xavier",
    "he": "He",
}


def weight_decay(runs: Sequence[Run]) -> Figure:
    """Losses by epoch, an axis a penalty, and the norms of the weights."""
    seeds = runs[0].metrics["seeds"]
    figure = blank(12.0, 3.9, f"weight decay: linear regression, means of {seeds} seeds")
    *losses, norms = figure.subplots(1, len(runs) + 1, width_ratios=[1.0] * len(runs) + [1.2])
    for axes, run, style in zip(losses, runs, cycle(("-", "--", ":", "-.")), strict=False):
        history, penalty = run.history, run.record.params["weight_decay"]
        for part, colour in (("train", TRAIN), ("test", VALIDATION)):
            axes.plot(history["epoch"], history[f"{part}_loss"], color=colour, label=part)
        axes.set_yscale("log")
        axes.set(title=f"weight decay {penalty:g}", xlabel="epoch", ylabel="half squared error")
        axes.sharey(losses[0])
        for norm, colour in zip(("l1", "l2", "linf"), COLOURS, strict=False):
            label = f"{'maximum' if norm == 'linf' else norm.upper()}, {penalty:g}"
            norms.plot(history["epoch"], history[norm], style, color=colour, label=label)
    norms.set_yscale("log")
    norms.set(title="norms of the weights", xlabel="epoch")
    plain(*losses, norms)
    return figure


def house_prices(runs: Sequence[Run]) -> Figure:
    """Errors by epoch, and after the last one with their spread over the folds."""
    folds = runs[0].metrics["folds"]
    figure = blank(11.0, 3.9, f"house prices: {folds}-fold validation")
    curves, ends = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for i, (run, colour) in enumerate(zip(runs, cycle(COLOURS), strict=False)):
        for part, style, marker, y in (
            ("train", ":", "s", i - 0.15),
            ("validation", "-", "o", i + 0.15),
        ):
            name = f"{part}_log_rmse"
            label = f"{_short(run)}, {part}"
            curves.plot(run.history["epoch"], run.history[name], style, color=colour, label=label)
            _mean_and_spread(ends, run, name, y, f"{part} {{:.3f}}", marker, colour)
    curves.set_yscale("log")
    curves.set(xlabel="epoch", ylabel="root mean squared error of log price")
    ends.set_yticks(range(len(runs)), [_short(run) for run in runs])
    ends.set(xlabel="after the last epoch, mean and standard deviation")
    ends.set(ylim=(len(runs) - 0.4, -0.6))
    plain(curves, ends)
    return figure


def initialisation(runs: Sequence[Run]) -> Figure:
    """Gradients by depth and by layer before training, and the losses that follow."""
    depths = runs[0].record.params["depths"]
    middle = (depths + 1) // 2
    figure = blank(14.5, 3.7, "initialisation: gradients at the start, and what comes of them")
    by_depth, by_layer, curves, losses = figure.subplots(1, 4)
    for run, colour in zip(runs, cycle(COLOURS), strict=False):
        style = {"color": colour, "marker": "o", "ms": 3.5}
        label = SCHEMES.get(_short(run), _short(run))
        gradients = run.table("gradients.csv")
        first = [row for row in gradients if row["layer"] == "1"]
        deepest = [row for row in gradients if row["depth"] == str(depths)]
        for axes, rows, x in ((by_depth, first, "depth"), (by_layer, deepest, "layer")):
            # A norm of 0 has no place on a logarithmic axis.
            points = [(int(row[x]), float(row["norm"])) for row in rows if float(row["norm"])]
            if points:
                shown = label if axes is by_depth else None
                axes.plot(*zip(*points, strict=True), **style, label=shown)
        by_loss = {d: run.history.get(f"loss_depth_{d}", []) for d in range(1, depths + 1)}
        if curve := by_loss[middle]:
            curves.plot(run.history["epoch"][: len(curve)], curve, **style)
        # What diverged on the way has no loss in the last epoch.
        last = [(d, loss[-1]) for d, loss in by_loss.items() if loss and len(loss) == len(run.rows)]
        if last:
            losses.plot(*zip(*last, strict=True), **style)
    for axes in (by_depth, by_layer):
        axes.set_yscale("log")
    by_depth.set(xlabel="hidden layers", ylabel="gradient norm", title="of the first layer")
    by_layer.set(xlabel="layer", title=f"of every layer, {depths} hidden")
    curves.set(xlabel="epoch", ylabel="training loss / nats", title=f"{middle} hidden layers")
    losses.set(xlabel="hidden layers", title="loss in the last epoch")
    for axes in (curves, losses):
        axes.set_ylim(0, 3)
    for axes in (by_depth, by_layer, curves, losses):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    return figure


def k_fold(runs: Sequence[Run]) -> Figure:
    """Validation accuracy of every fold, with its mean and spread."""
    variants = [run for run in runs if run.record.parent is None]
    folds = variants[0].metrics["folds"]
    figure = blank(8.0, 0.9 + 0.7 * len(variants), f"{folds}-fold validation")
    axes = figure.subplots()
    for i, (variant, colour) in enumerate(zip(variants, cycle(COLOURS), strict=False)):
        parts = [run for run in runs if run.record.parent == variant.name]
        accuracies = [run.metrics["validation_accuracy"] for run in parts]
        axes.plot(accuracies, [i] * len(accuracies), "o", color=colour, alpha=0.5, ms=6)
        words = "{:.4f} ± {:.4f}"
        _mean_and_spread(axes, variant, "validation_accuracy", i, words, "|", colour, ms=16)
    axes.set_yticks(range(len(variants)), [_short(variant) for variant in variants])
    axes.set(xlabel="validation accuracy", ylim=(len(variants) - 0.5, -0.7))
    plain(axes)
    return figure


def _mean_and_spread(
    axes: Axes, run: Run, metric: str, y: float, words: str, fmt: str, colour: str, ms: float = 6
) -> None:
    """Mark a metric and its standard deviation at a height, with a text of both above the mark."""
    mean, std = run.metrics[metric], run.metrics[f"{metric}_std"]
    axes.errorbar(mean, y, xerr=std, fmt=fmt, ms=ms, color=colour, capsize=3)
    axes.annotate(
        words.format(mean, std), (mean, y), (0, ms / 2 + 3), textcoords="offset points",
        ha="center", fontsize=8,
    )  # fmt: skip


def _short(run: Run) -> str:
    """The name of a run within its study."""
    return run.name.partition("/")[2]


PICTURES: dict[str, Callable[[Sequence[Run]], Figure]] = {
    "weight_decay": weight_decay,
    "house_prices": house_prices,
    "initialisation": initialisation,
    "k_fold": k_fold,
}
"""The drawing of each study, from all its runs: first those that sum up others."""
