"""Sweeps of every shape are drawn, and the drawings show their numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refashion.pictures import figures, sweeps
from refashion.pictures.points import DIVERGED, Point, rank

METRICS = {"test_loss": "test loss"}


def point(settings: Mapping[str, Any], *accuracies: float, epochs: int = 3) -> Point:
    """A point of so many runs as there are accuracies."""
    curves = [[a * e / epochs for e in range(1, epochs + 1)] for a in accuracies]
    columns = {"epoch": curves, "train_loss": curves, "validation_accuracy": curves}
    metrics = {"test_loss": accuracies} if accuracies else {}
    runs = [str(i) for i in range(max(len(accuracies), 1))]
    return Point(runs=runs, settings=settings, metrics=metrics, curves=columns)


def drawn(points: Sequence[Point], best: Sequence[Point] = ()) -> dict[str, Figure]:
    figures_by_name = sweeps.draw(points, best, METRICS)
    pictures = {figure.get_suptitle(): figure for figure in figures_by_name.values()}
    assert all(figures.png(figure).startswith(b"\x89PNG") for figure in pictures.values())
    return pictures


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def ticks(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


@pytest.mark.parametrize(
    ("name", "values", "scale"),
    [
        ("lr", [0.1, 0.2], "log"),
        ("epochs", [5, 10], "linear"),
        ("batch_size", [16, 64, 256], "log"),
        ("weight_decay", [0, 1e-4, 1e-2], "symlog"),
        ("shift", [-1, 100], "linear"),
    ],
)
def test_a_metric_by_a_setting(name: str, values: list[float], scale: str) -> None:
    means = [0.5 + i / 10 for i in range(len(values))]
    points = [point({name: v}, m - 0.1, m + 0.1) for v, m in zip(values, means, strict=True)]
    panel, curves = drawn(points).values()
    (axes,) = panel.axes
    assert (axes.get_xscale(), axes.get_xlabel()) == (scale, name)
    ((middles, _, (spreads,)),) = axes.containers
    assert middles.get_xydata() == pytest.approx(np.array([values, means]).T)
    lengths = [np.ptp(segment[:, 1]) for segment in spreads.get_segments()]
    assert lengths == pytest.approx([2 * math.sqrt(0.02)] * len(values))
    loss, accuracy = curves.axes
    assert accuracy.get_ylabel() == "validation accuracy"
    assert [line.get_ydata()[-1] for line in loss.lines] == pytest.approx(means)
    assert len(loss.collections) == len(values)  # bands
    assert legend(curves) == [f"{name}={value}" for value in values]


def test_categories_are_sorted_and_settings_may_be_missing() -> None:
    values = [None, [16], [128], [16, 16], "deep"]
    panel = drawn([point({"hidden": value}, 0.5) for value in values])["test loss by hidden"]
    assert ticks(panel.axes[0]) == ["none", "[16]", "[128]", "[16,16]", "deep"]
    assert [rank(v) for v in values] == sorted(map(rank, reversed(values)))


def test_a_grid_is_a_heat_map() -> None:
    points = [
        point({"hidden": [width], "lr": lr}, width * lr)
        for width in (1, 20)
        for lr in (0.01, 0.02, 0.03)
        if (width, lr) != (20, 0.02)
    ]
    axes, _ = drawn(points)["test loss by hidden, lr"].axes
    (image,) = axes.images
    shown = np.ma.filled(image.get_array(), np.nan)
    assert shown == pytest.approx(np.array([[0.01, 0.02, 0.03], [0.2, np.nan, 0.6]]), nan_ok=True)
    assert ticks(axes) == ["0.01", "0.02", "0.03"]
    assert {t.get_text() for t in axes.texts} == {"0.01", "0.02", "0.03", "0.2", "0.6"}


def test_hundreds_of_runs_at_random_some_of_which_diverged() -> None:
    rng = np.random.default_rng(0)
    points = [
        point({"lr": lr, "momentum": momentum, "units": i % 60}, *[momentum] * (i % 7 > 0))
        for i, (lr, momentum) in enumerate(rng.random((300, 2)).tolist())
    ]
    points[1].curves["train_loss"][0][2] = math.inf  # type: ignore[index]
    panels, curves = drawn(points).values()
    assert [axes.get_xlabel() for axes in panels.axes] == ["lr", "momentum", "units"]
    assert legend(panels) == ["no value: 43 of 300"]
    assert len(curves.axes[0].lines) == 257
    assert len(legend(curves)) <= sweeps.LONGEST_LEGEND


def test_curves_over_seeds_end_with_the_shortest() -> None:
    curves = {"train_loss": [[3.0, 1.0, 0.5], [1.0, 0.0]]}
    seeds = Point(runs=["a", "b"], settings={}, metrics={}, curves=curves)
    axes = drawn([seeds])["learning curves, mean ± standard deviation over seeds"].axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 2], [2, 0.5]]
    assert len(axes.collections) == 1


def test_what_has_no_number_is_left_out() -> None:
    bare = [Point(runs=[""], settings={"lr": lr}, metrics={}, curves={}) for lr in (0.1, 0.2)]
    (figure,) = drawn(bare).values()
    assert legend(figure) == ["no value: 2 of 2"]
    assert sweeps.draw(bare, [], {}) == {}
    few = [point({"lr": i}, *values) for i, values in enumerate([[0], [], [0.001], [0.5]], start=1)]
    figure = drawn(few)["test loss by lr"]
    assert (figure.axes[0].get_yscale(), legend(figure)) == ("symlog", ["no value: 1 of 4"])
    loss, accuracy = sweeps.draw(few, [], {})["learning_curves"].axes
    assert (loss.get_yscale(), accuracy.get_yscale()) == ("symlog", "linear")


# --- the best, the diverged and the short --------------------------------------------------------


def diverged(settings: Mapping[str, Any], epochs: int) -> Point:
    """A run that diverged after so many epochs."""
    curves = {"validation_accuracy": [[0.5] * epochs]} if epochs else {}
    return Point(runs=["d"], settings=settings, metrics={DIVERGED: [epochs + 1]}, curves=curves)


def marks(axes: Axes, marker: str) -> list[tuple[float, float]]:
    """Where there are crosses or stars."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    return [tuple(place) for line in lines for place in line.get_xydata().tolist()]


def test_best_and_diverged_runs_are_marked() -> None:
    points = [point({"lr": lr}, lr) for lr in (0.1, 0.25)]
    points += [diverged({"lr": 1}, 2), diverged({"lr": 2}, 0)]
    panels, curves = drawn(points, [points[1]]).values()
    assert legend(panels) == ["diverged: 2 of 4", "best: 0"]
    (axes,) = panels.axes
    assert marks(axes, "*") == [(0.25, 0.25)]
    assert [x for x, _ in marks(axes, "x")] == [1, 2]
    accuracy = curves.axes[1]
    assert accuracy.get_ylabel() == "validation accuracy"
    assert (marks(accuracy, "*"), marks(accuracy, "x")) == ([(3, 0.25)], [(2, 0.5)])
    assert legend(curves) == ["lr=0.1", "lr=0.25", "lr=1", "diverged: 2", "best: 0"]
    at_once = drawn([points[0], diverged({"lr": 2}, 0)])["learning curves"]
    assert legend(at_once) == ["lr=0.1", "diverged: 1"]


def test_best_and_diverged_runs_are_marked_in_a_heat_map() -> None:
    grid = [{"hidden": hidden, "lr": lr} for hidden in ([16], [8, 8]) for lr in (0.1, 0.2, 0.3)]
    points = [point(settings, settings["lr"]) for settings in grid[:5]] + [diverged(grid[5], 1)]
    figure = drawn(points, [points[4]])["test loss by hidden, lr"]
    (frame,) = figure.axes[0].patches
    assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (1, 1)  # lr 0.2, the second network
    assert marks(figure.axes[0], "x") == [(2, 1)]
    assert legend(figure) == ["diverged: 1 of 6", "best: 0"]


def test_epochs_are_told_by_colour() -> None:
    """Of successive halving: what was trained for fewer epochs is not worse for that."""
    tried = [(1, 0.1), (1, 0.2), (1, 0.3), (3, 0.2), (3, 0.3), (9, 0.2)]
    points = [point({"epochs": n, "lr": lr}, lr * n, epochs=n) for n, lr in tried]
    panels, curves = drawn(points).values()
    (axes,) = panels.axes
    assert axes.get_xlabel() == "lr"
    assert legend(panels) == ["epochs=1", "epochs=3", "epochs=9"]
    lines = [container[0] for container in axes.containers]
    assert [len(line.get_xdata()) for line in lines] == [3, 2, 1]
    assert len({tuple(line.get_color()) for line in lines}) == 3
    assert [len(line.get_xdata()) for line in curves.axes[0].lines] == [n for n, _ in tried]
    (only,) = drawn([point({"epochs": n}, n) for n in (1, 3)])["test loss by epochs"].axes
    assert len(only.containers) == 1


def test_names_are_text_and_no_formulas() -> None:
    name = r"$\frac$"  # which matplotlib refuses to draw
    several = [point({name: value, "lr": 0.1}, 0.5) for value in (name, "$y$")]
    best = [replace(several[0], runs=[name])]
    for points in (several, [point({name: value}, 0.5) for value in (name, "$y$")]):
        assert any(
            name in text for figure in drawn(points, best).values() for text in legend(figure)
        )


def test_of_many_curves_the_best_few_are_named() -> None:
    points = [point({"lr": i}, i / 50) for i in range(1, 50)]
    best = points[:43:-1]
    curves = drawn(points, best)["learning curves"]
    assert legend(curves) == [*(f"{i}. lr={50 - i}" for i in range(1, 6)), "best: 0"]
    heavy = [
        line
        for line in curves.axes[1].lines
        if line.get_linewidth() > 1.5 and line.get_xdata().size > 1
    ]
    assert [line.get_ydata()[-1] for line in heavy] == [p.metrics["test_loss"][0] for p in best]
