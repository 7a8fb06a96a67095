"""Pictures of the studies, drawn from what they have left."""

import csv
from collections.abc import Callable
from functools import cache
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refashion import studies
from refashion.base import paths
from refashion.tracking import results
from refashion.tracking.figures import TRAIN, VALIDATION, blank, plain, png

COLOURS = ("#1f5fa8", "#e0802b", "#3c8d40", "#c22f2f", "#7b52ab", "#4a4a4a", "#b8860b", "#2a9d9d")
LABELS = {
    "constant": "constant 0.01",
    "small_normal": "N(0, 0.01)",
    "unit_normal": "N(0, 1)",
    "xavier": "Xavier",
    "he": "He",
}


@cache
def draw(root: Path, study: str) -> bytes:
    """The picture of a study of the checkout `root`, PNG; all its arms share it."""
    return png(PICTURES[study](root))


def weight_decay(root: Path) -> Figure:
    """Losses by epoch, an axis a penalty, and the norms of the weights."""
    arms = results.arms(root, "weight_decay")
    seeds = arms[0].metrics["seeds"]
    drawn = blank(12.0, 3.9, f"weight decay: linear regression, means of {seeds} seeds")
    *losses, norms = drawn.subplots(1, len(arms) + 1, width_ratios=[1.0] * len(arms) + [1.2])
    for axes, arm in zip(losses, arms, strict=True):
        history, penalty = arm.history, arm.record["params"]["weight_decay"]
        for part, colour in (("train", TRAIN), ("test", VALIDATION)):
            axes.plot(history["epoch"], history[f"{part}_loss"], color=colour, label=part)
        axes.set_yscale("log")
        axes.set(title=f"weight decay {penalty:g}", xlabel="epoch", ylabel="half squared error")
        axes.sharey(losses[0])
        axes.legend(frameon=False, fontsize=8)
        plain(axes)
    for arm, style in zip(arms, ("-", "--", ":", "-."), strict=False):
        history, penalty = arm.history, arm.record["params"]["weight_decay"]
        for norm, colour in zip(("l1", "l2", "linf"), COLOURS, strict=False):
            name = {"linf": "maximum"}.get(norm, norm.upper())
            norms.plot(
                history["epoch"], history[norm], style, color=colour, label=f"{name}, {penalty:g}"
            )
    norms.set_yscale("log")
    norms.set(title="norms of the weights", xlabel="epoch")
    norms.legend(frameon=False, fontsize=8)
    plain(norms)
    return drawn


def house_prices(root: Path) -> Figure:
    """Errors by epoch, and at the end with their spread over the folds."""
    arms = results.arms(root, "house_prices")
    folds = arms[0].metrics["folds"]
    drawn = blank(11.0, 3.9, f"house prices: {folds}-fold validation")
    curves, ends = drawn.subplots(1, 2, width_ratios=(1.5, 1))
    for i, (arm, colour) in enumerate(zip(arms, COLOURS, strict=False)):
        for part, style in (("train", ":"), ("validation", "-")):
            curves.plot(
                arm.history["epoch"],
                arm.history[f"{part}_log_rmse"],
                style,
                color=colour,
                label=f"{arm.arm}, {part}",
            )
            shift = 0.15 if part == "validation" else -0.15
            mean = arm.metrics[f"{part}_log_rmse"]
            deviation = arm.metrics[f"{part}_log_rmse_deviation"]
            marker = "o" if part == "validation" else "s"
            ends.errorbar(mean, i + shift, xerr=deviation, fmt=marker, color=colour, capsize=3)
            ends.annotate(
                f"{part} {mean:.3f}", (mean, i + shift), (0, 6), textcoords="offset points",
                ha="center", fontsize=7.5,
            )  # fmt: skip
    curves.set_yscale("log")
    curves.set(xlabel="epoch", ylabel="root mean squared error of log price")
    ends.set_yticks(range(len(arms)), [arm.arm for arm in arms])
    ends.set(
        xlabel="after the last epoch, mean and standard deviation", ylim=(len(arms) - 0.4, -0.6)
    )
    curves.legend(frameon=False, fontsize=8)
    plain(curves)
    plain(ends)
    return drawn


def initialisation(root: Path) -> Figure:
    """Gradients by depth and by layer where trainings start, and what comes of them."""
    arms = results.arms(root, "initialisation")
    with arms[0].file(paths.gradients("initialisation")).open(newline="") as file:
        gradients = list(csv.DictReader(file))
    depths = arms[0].record["params"]["depths"]
    middle = (depths + 1) // 2
    drawn = blank(14.5, 3.7, "initialisation: gradients at the start, and what comes of them")
    by_depth, by_layer, curves, losses = drawn.subplots(1, 4)
    for arm, colour in zip(arms, COLOURS, strict=False):
        own = [row for row in gradients if row["arm"] == arm.arm]
        first = [row for row in own if row["layer"] == "1"]
        deepest = [row for row in own if row["depth"] == str(depths)]
        label = LABELS.get(arm.arm, arm.arm)
        for axes, rows, x in ((by_depth, first, "depth"), (by_layer, deepest, "layer")):
            positive = [(int(row[x]), float(row["norm"])) for row in rows if float(row["norm"])]
            if positive:
                axes.plot(*zip(*positive, strict=True), "o-", ms=3.5, color=colour, label=label)
        if curve := arm.history.get(f"loss_depth_{middle}"):
            curves.plot(arm.history["epoch"][: len(curve)], curve, "o-", ms=3.5, color=colour)
        last = [
            (depth, arm.history[f"loss_depth_{depth}"][-1])
            for depth in range(1, depths + 1)
            if len(arm.history.get(f"loss_depth_{depth}", [])) == len(arm.rows)
        ]
        if last:
            losses.plot(*zip(*last, strict=True), "o-", ms=3.5, color=colour, label=label)
    by_depth.set_yscale("log")
    by_layer.set_yscale("log")
    by_depth.set(xlabel="hidden layers", ylabel="gradient norm", title="of the first layer")
    by_layer.set(xlabel="layer", title=f"of every layer, {depths} hidden")
    curves.set(xlabel="epoch", ylabel="training loss / nats", title=f"{middle} hidden layers")
    losses.set(xlabel="hidden layers", title="loss in the last epoch")
    for axes in (curves, losses):
        axes.set_ylim(0, 3)
    by_depth.legend(frameon=False, fontsize=8)
    for axes in (by_depth, by_layer, curves, losses):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    return drawn


def k_fold(root: Path) -> Figure:
    """Validation accuracy of every fold, with its mean and spread."""
    arms = results.arms(root, "k_fold")
    parents = [arm for arm in arms if arm.parent is None]
    drawn = blank(8.0, 0.9 + 0.7 * len(parents), f"{parents[0].metrics['folds']}-fold validation")
    axes = drawn.subplots()
    for i, (parent, colour) in enumerate(zip(parents, COLOURS, strict=False)):
        own = [arm for arm in arms if arm.parent == parent.variant]
        values = [arm.metrics["validation_accuracy"] for arm in own]
        axes.plot(values, [i] * len(values), "o", color=colour, alpha=0.5, ms=6)
        mean = parent.metrics["validation_accuracy"]
        deviation = parent.metrics["validation_accuracy_deviation"]
        axes.errorbar(mean, i, xerr=deviation, fmt="|", ms=16, color=colour, capsize=4)
        axes.annotate(
            f"{mean:.4f} ± {deviation:.4f}", (mean, i), (0, 11), textcoords="offset points",
            ha="center", fontsize=8.5,
        )  # fmt: skip
    axes.set_yticks(range(len(parents)), [parent.arm for parent in parents])
    axes.set(xlabel="validation accuracy", ylim=(len(parents) - 0.5, -0.7))
    plain(axes)
    return drawn


PICTURES: dict[str, Callable[[Path], Figure]] = {
    "weight_decay": weight_decay,
    "house_prices": house_prices,
    "initialisation": initialisation,
    studies.K_FOLD: k_fold,
}
