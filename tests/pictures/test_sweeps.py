"""Sweeps of every shape are drawn, and the drawings show their numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refashion.pictures import figures, sweeps
from refashion.pictures.sweeps import Point

METRICS = {"test_accuracy": "test accuracy"}


def point(settings: Mapping[str, Any], *accuracies: float, epochs: int = 3) -> Point:
    """A point of so many runs as there are accuracies."""
    curves = [[a * e / epochs for e in range(1, epochs + 1)] for a in accuracies]
    columns = {"epoch": curves, "train_loss": curves, "validation_accuracy": curves}
    metrics = {"test_accuracy": accuracies} if accuracies else {}
    runs = [str(i) for i in range(max(len(accuracies), 1))]
    return Point(runs=runs, settings=settings, metrics=metrics, curves=columns)


def drawn(points: Sequence[Point]) -> dict[str, Figure]:
    pictures = {figure.get_suptitle(): figure for figure in sweeps.draw(points, METRICS)}
    assert all(figures.png(figure).startswith(b"\x89PNG") for figure in pictures.values())
    return pictures


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
    (legend,) = curves.legends
    assert [t.get_text() for t in legend.get_texts()] == [f"{name}={value}" for value in values]


def test_categories_are_sorted_and_settings_may_be_missing() -> None:
    values = [None, [16], [128], [16, 16], "deep"]
    panel = drawn([point({"hidden": value}, 0.5) for value in values])["test accuracy by hidden"]
    assert ticks(panel.axes[0]) == ["none", "[16]", "[128]", "[16,16]", "deep"]
    assert [sweeps.rank(v) for v in values] == sorted(map(sweeps.rank, reversed(values)))


def test_a_grid_is_a_heat_map() -> None:
    points = [
        point({"hidden": [width], "lr": lr}, width * lr)
        for width in (1, 20)
        for lr in (0.01, 0.02, 0.03)
        if (width, lr) != (20, 0.02)
    ]
    axes, _ = drawn(points)["test accuracy by hidden, lr"].axes
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
    assert {axes.get_title() for axes in panels.axes} == {"43 of 300 have no value"}
    assert len(curves.axes[0].lines) == 257
    assert len(curves.legends[0].get_texts()) <= sweeps.LONGEST_LEGEND


def test_curves_over_seeds_end_with_the_shortest() -> None:
    curves = {"train_loss": [[3.0, 1.0, 0.5], [1.0, 0.0]]}
    seeds = Point(runs=["a", "b"], settings={}, metrics={}, curves=curves)
    axes = drawn([seeds])["learning curves, mean ± standard deviation over seeds"].axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 2], [2, 0.5]]
    assert len(axes.collections) == 1


def test_what_has_no_number_is_left_out() -> None:
    bare = [Point(runs=[""], settings={"lr": lr}, metrics={}, curves={}) for lr in (0.1, 0.2)]
    (figure,) = drawn(bare).values()
    assert figure.axes[0].get_title() == "2 of 2 have no value"
    assert sweeps.draw(bare, {}) == []
    few = [point({"lr": i}, *values) for i, values in enumerate([[0], [], [0.001], [0.5]], start=1)]
    axes = drawn(few)["test accuracy by lr"].axes[0]
    assert (axes.get_yscale(), axes.get_title()) == ("symlog", "1 of 4 have no value")
