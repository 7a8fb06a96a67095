"""Pictures of the studies show the numbers of their runs."""

import math
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from refashion.base.workspace import Workspace
from refashion.pictures import figures
from refashion.pictures.studies import PICTURES
from refashion.runs import listing
from synthetic import write_run


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def drawn(workspace: Workspace, study: str) -> list[Axes]:
    """The axes of a study's picture, which can be rendered."""
    figure = PICTURES[study](listing.of_study(workspace, study))
    assert figures.png(figure).startswith(b"\x89PNG\r\n\x1a\n")
    return figure.axes


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    """Points of each line that has some."""
    each = [zip(line.get_xdata(), line.get_ydata(), strict=True) for line in axes.lines]
    return list(filter(None, ([(x, y) for x, y in line if not math.isnan(y)] for line in each)))


def test_weight_decay(workspace: Workspace) -> None:
    measures = ("train_loss", "test_loss", "l0", "l1", "l2", "linf")
    for penalty in (0, 3):
        history = [{name: i + e + penalty for i, name in enumerate(measures)} for e in (1, 2)]
        params = {"weight_decay": float(penalty)}
        write_run(workspace, f"weight_decay/{penalty}", history, {"seeds": 20}, params=params)
    without, with_decay, norms = drawn(workspace, "weight_decay")
    assert (without.get_title(), with_decay.get_title()) == ("weight decay 0", "weight decay 3")
    assert lines(without) == [[(1, 1), (2, 2)], [(1, 2), (2, 3)]]
    assert lines(with_decay) == [[(1, 4), (2, 5)], [(1, 5), (2, 6)]]
    labels = ["L1, 0", "L2, 0", "maximum, 0", "L1, 3", "L2, 3", "maximum, 3"]
    assert [line.get_label() for line in norms.lines] == labels


def test_house_prices(workspace: Workspace) -> None:
    for i, name in enumerate(("linear", "mlp")):
        metrics = {"train_log_rmse": 0.1 + i, "validation_log_rmse": 0.2 + i}
        spread = {f"{metric}_std": 0.05 for metric in metrics}
        write_run(workspace, f"house_prices/{name}", [metrics], {**metrics, **spread, "folds": 5})
    curves, ends = drawn(workspace, "house_prices")
    assert lines(curves) == [[(1, 0.1)], [(1, 0.2)], [(1, 1.1)], [(1, 1.2)]]
    assert [t.get_text() for t in ends.get_yticklabels()] == ["linear", "mlp"]
    assert "validation 1.200" in [t.get_text() for t in ends.texts]


def test_initialisation_with_networks_that_diverged(workspace: Workspace) -> None:
    """He's at once; from N(0, 1) the deeper has no loss, the other none in the last epoch."""
    for name, norm, history in (
        ("he", 9.0, []),
        ("unit_normal", 1e3, [{"loss_depth_1": 5.0}, {"loss_depth_1": None}]),
        ("xavier", 0.0, [{"loss_depth_1": 2.0, "loss_depth_2": 1.0}] * 2),
    ):
        rows = [[1, 1, norm], [1, 2, 2.0], [2, 1, norm], [2, 2, 3.0], [2, 3, 4.0]]
        tables = {"gradients.csv": (["depth", "layer", "norm"], rows)}
        write_run(
            workspace, f"initialisation/{name}", history, {}, params={"depths": 2}, tables=tables
        )
    by_depth, by_layer, curves, losses = drawn(workspace, "initialisation")
    assert [line.get_label() for line in by_depth.lines] == ["He", "N(0, 1)", "Xavier"]
    assert lines(by_depth) == [[(1, norm), (2, norm)] for norm in (9, 1e3, 0)]
    assert lines(by_layer) == [[(1, norm), (2, 3), (3, 4)] for norm in (9, 1e3, 0)]
    assert lines(curves) == [[(1, 5)], [(1, 2), (2, 2)]]
    assert lines(losses) == [[(1, 2), (2, 1)]]


def test_k_fold(workspace: Workspace) -> None:
    for name, accuracies in (("mlp", (0.8, 0.9)), ("softmax", (0.6, 0.7))):
        mean = {"validation_accuracy": sum(accuracies) / 2, "validation_accuracy_std": 0.07}
        write_run(workspace, f"k_fold/{name}", [{}], {**mean, "folds": 2})
        for i, accuracy in enumerate(accuracies, start=1):
            metrics, fold = {"validation_accuracy": accuracy}, f"k_fold/{name}.fold_{i}"
            write_run(workspace, fold, [metrics], metrics, parent=f"k_fold/{name}")
    (axes,) = drawn(workspace, "k_fold")
    assert lines(axes)[0] == [(0.8, 0), (0.9, 0)]
    assert [t.get_text() for t in axes.texts] == ["0.8500 ± 0.0700", "0.6500 ± 0.0700"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["mlp", "softmax"]
