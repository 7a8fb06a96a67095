"""Drawings of the studies, from their runs."""

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refashion.pictures import points, sweeps
from refashion.pictures.figures import COLOURS, TRAIN, VALIDATION, blank, plain
from refashion.runs.run import TRIALS, Run

VALIDATED = {
    "validation_accuracy": "validation accuracy",
    "validation_loss": "validation loss / nats",
}
"""Metrics that are drawn of a sweep."""

NORMS = {"l1": "L1", "l2": "L2", "linf": "maximum"}
SCHEMES = {
    "constant": "constant 0.01",
    "small_normal": "N(0, 0.01)",
    "unit_normal": "N(0, 1)",
    "xavier": "Xavier",
    "he": "He",
}


def draw(study: str, runs: Sequence[Run]) -> dict[str, Figure]:
    """Draw a study from all its runs: figures by name; what has a table of trials, as a sweep."""
    if runs and study in PICTURES:
        return {study: PICTURES[study](runs)}
    trials = {run.name.rpartition("/")[2]: run for run in runs if run.record.parent}
    if not trials or not any(run.has(TRIALS) for run in runs):
        return {}
    parts = ("settings", "metrics", "history")
    by_part = ({name: getattr(run, part) for name, run in trials.items()} for part in parts)
    of_trials, best = points.of(*by_part)
    drawn = sweeps.draw(of_trials, best, VALIDATED)
    return {f"trials_{name}": figure for name, figure in drawn.items()}


def weight_decay(runs: Sequence[Run]) -> Figure:
    """Losses by epoch, an axis a penalty, and the norms of the weights."""
    seeds = runs[0].metrics["seeds"]
    figure = blank(12.0, 3.9, f"weight decay: linear regression, means of {seeds} seeds")
    *losses, norms = figure.subplots(1, len(runs) + 1, width_ratios=[1.0] * len(runs) + [1.2])
    for axes, run, style in zip(losses, runs, cycle(("-", "--", ":", "-.")), strict=False):
        history, penalty = run.history, f"{run.record.params['weight_decay']:g}"
        for part, colour in (("train", TRAIN), ("test", VALIDATION)):
            axes.plot(history["epoch"], history[f"{part}_loss"], color=colour, label=part)
        axes.set(title=f"weight decay {penalty}", yscale="log")
        axes.set(xlabel="epoch", ylabel="half squared error")
        axes.sharey(losses[0])
        for (norm, name), colour in zip(NORMS.items(), COLOURS, strict=False):
            label = f"{name}, {penalty}"
            norms.plot(history["epoch"], history[norm], style, color=colour, label=label)
    norms.set(title="norms of the weights", xlabel="epoch", yscale="log")
    plain(*losses, norms)
    return figure


def house_prices(runs: Sequence[Run]) -> Figure:
    """Errors by epoch, and after the last one with their spread over the folds."""
    folds = runs[0].metrics["folds"]
    figure = blank(11.0, 3.9, f"house prices: {folds}-fold validation")
    curves, ends = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for run, colour in zip(runs, cycle(COLOURS), strict=False):
        for part, style in (("train", ":"), ("validation", "-")):
            errors, label = run.history[f"{part}_log_rmse"], f"{_short(run)}, {part}"
            curves.plot(run.history["epoch"], errors, style, color=colour, label=label)
    curves.set(xlabel="epoch", ylabel="root mean squared error of log price", yscale="log")
    forms = {f"{part}_log_rmse": f"{part} {{:.3f}}" for part in ("train", "validation")}
    _means_and_spreads(ends, runs, forms)
    ends.set(xlabel="after the last epoch, mean and standard deviation")
    plain(curves, ends)
    return figure


def initialisation(runs: Sequence[Run]) -> Figure:
    """Gradients by depth and by layer before training, and the losses that follow."""
    depths = range(1, runs[0].record.params["depths"] + 1)
    middle = (depths[-1] + 1) // 2
    figure = blank(14.5, 3.7, "initialisation: gradients at the start, and what comes of them")
    by_depth, by_layer, curves, losses = figure.subplots(1, 4)
    for run, colour in zip(runs, cycle(COLOURS), strict=False):
        style = {"color": colour, "marker": "o", "ms": 3.5}
        gradients = pd.read_csv(run.file("gradients.csv"))
        first = gradients[gradients["layer"] == 1]
        deepest = gradients[gradients["depth"] == depths[-1]]
        # What diverged on the way has no loss from then on.
        history = pd.read_csv(run.file("history.csv"), index_col="epoch")
        loss = history.reindex(columns=[f"loss_depth_{d}" for d in depths]).to_numpy(float)
        name = SCHEMES.get(_short(run), _short(run))
        by_depth.plot(first["depth"], first["norm"], label=name, **style)
        by_layer.plot(deepest["layer"], deepest["norm"], **style)
        curves.plot(history.index, loss[:, middle - 1], **style)
        losses.plot(depths, loss[-1:].T, **style)
    by_depth.set(xlabel="hidden layers", ylabel="gradient norm", title="of the first layer")
    by_layer.set(xlabel="layer", title=f"of every layer, {depths[-1]} hidden")
    curves.set(xlabel="epoch", ylabel="training loss / nats", title=f"{middle} hidden layers")
    losses.set(xlabel="hidden layers", title="loss in the last epoch")
    for axes in (by_depth, by_layer):
        axes.set_yscale("log", nonpositive="mask")
    for axes in (curves, losses):
        axes.set_ylim(0, 3)
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(*figure.axes)
    return figure


def k_fold(runs: Sequence[Run]) -> Figure:
    """Validation accuracy of every fold, with its mean and spread."""
    metric = "validation_accuracy"
    variants = [run for run in runs if run.record.parent is None]
    folds = variants[0].metrics["folds"]
    figure = blank(8.0, 0.9 + 0.7 * len(variants), f"{folds}-fold validation")
    axes = figure.subplots()
    for i, (variant, colour) in enumerate(zip(variants, cycle(COLOURS), strict=False)):
        accuracies = [run.metrics[metric] for run in runs if run.record.parent == variant.name]
        axes.plot(accuracies, [i] * len(accuracies), "o", color=colour, alpha=0.5)
    _means_and_spreads(axes, variants, {metric: "{:.4f} ± {:.4f}"})
    axes.set(xlabel="validation accuracy")
    plain(axes)
    return figure


def _means_and_spreads(axes: Axes, runs: Sequence[Run], forms: Mapping[str, str]) -> None:
    """Mark metrics and their standard deviations from the first run down, with texts of both."""
    for i, (run, colour) in enumerate(zip(runs, cycle(COLOURS), strict=False)):
        for j, (metric, form) in enumerate(forms.items()):
            mean, std = run.metrics[metric], run.metrics[f"{metric}_std"]
            y = i + 0.4 * (j - (len(forms) - 1) / 2)
            axes.errorbar(mean, y, xerr=std, fmt="|", ms=12, color=colour, capsize=3)
            words = form.format(mean, std)
            text = axes.annotate(words, (mean, y), (0, 8), textcoords="offset points")
            text.set(fontsize=8, ha="center")
    axes.set_yticks(range(len(runs)), [_short(run) for run in runs])
    axes.set_ylim(len(runs) - 0.5, -0.7)


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
