"""What is told of runs side by side is what they left."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refashion.base.workspace import Workspace
from refashion.pictures.sweeps import Point, rank
from refashion.reporting import side_by_side, tables
from refashion.reporting.side_by_side import Comparison
from refashion.runs import listing
from synthetic import write_study


def of(workspaces: Mapping[str, Workspace], *names: str) -> Comparison:
    """Set side by side what is named as workspace and variant."""
    split = [name.rsplit(" ", 1) for name in names]
    return side_by_side.of(listing.variant(workspaces[where], variant) for where, variant in split)


def test_variants_of_one_workspace(workspaces: dict[str, Workspace]) -> None:
    comparison = of(workspaces, "main softmax", "main mlp", "main dropout")
    assert list(comparison.runs) == ["dropout", "mlp", "softmax"]
    told = comparison.as_dict()
    assert told["dataset"] == "fashion_mnist"
    mlp = told["runs"]["mlp"]
    assert told["runs"]["dropout"]["settings"] == {"hidden": [256, 256], "lr": 0.5}
    assert (mlp["run"], mlp["metrics"]["test_accuracy"]) == ("mlp", pytest.approx(51 / 60))
    low, high = mlp["accuracy_interval"]
    assert low < 51 / 60 < high
    assert (told["seeds"], told["notes"]) == ({}, [])
    alone = of(workspaces, "main mlp")
    assert (alone.settings, alone.seeds, alone.tests["pairs"]) == ({"mlp": {}}, {}, {})


def test_names_tell_what_sets_namesakes_apart(workspaces: dict[str, Workspace]) -> None:
    comparison = of(workspaces, "main mlp", "seed 1 mlp", "lr 0.2 mlp", "main softmax")
    mlps = ["mlp lr=0.1 seed=0", "mlp lr=0.1 seed=1", "mlp lr=0.2 seed=0"]
    assert list(comparison.runs) == [*mlps, "softmax"]
    assert comparison.tests["pairs"][f"{mlps[0]} vs {mlps[1]}"]["only_first"] == 3


def test_runs_that_differ_in_seed_alone_are_summed_up(workspaces: dict[str, Workspace]) -> None:
    names = ("seed 2 mlp", "main mlp", "lr 0.2 mlp", "seed 1 mlp", "main dropout")
    comparison = of(workspaces, *names)
    ((name, group),) = comparison.as_dict()["seeds"].items()
    assert (name, group["seeds"]) == ("mlp lr=0.1", [0, 1, 2])
    accuracies = np.array([51, 48, 42]) / 60
    assert group["metrics"]["test_accuracy"] == pytest.approx(accuracies.mean())
    assert group["metrics"]["test_accuracy_std"] == pytest.approx(accuracies.std(ddof=1))
    assert group["metrics"]["test_macro_f1"] == 0.85
    assert of(workspaces, *reversed(names)).as_dict() == comparison.as_dict()


def test_outcomes_of_one_key_are_told_apart_and_not_summed_up(
    workspaces: dict[str, Workspace],
) -> None:
    runs = [listing.variant(workspaces[where], "mlp") for where in ("main", "seed 1", "diverged")]
    ids = ["3f2a9c77b01e", "5c1d", "77b01e3f2a9c"]
    comparison = side_by_side.of(runs, dict(zip(runs, ids, strict=True)))
    assert list(comparison.runs) == ["mlp 3f2a9c77", "mlp 77b01e3f", "mlp seed=1"]
    assert list(comparison.ids.values()) == [ids[0], ids[2], ids[1]]
    assert comparison.seeds == {}
    (note,) = comparison.notes
    assert note.startswith("mlp 3f2a9c77 and mlp 77b01e3f: the same settings, data and seed gave")


def test_runs_of_a_study_are_compared_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace(tmp_path)
    write_study(workspace, "weight_decay", "decay_0", "decay_3")
    runs = listing.of_study(workspace, "weight_decay")
    del runs[0].metrics["train_loss"], runs[1].metrics["l2_std"]
    comparison = side_by_side.of(runs)
    told = comparison.as_dict()
    first, second = told["runs"]["decay_0"], told["runs"]["decay_3"]
    assert [run["settings"] for run in (first, second)] == [{"weight_decay": d} for d in (0.0, 1.0)]
    assert (second["run"], first["metrics"]["l2_std"]) == ("weight_decay/decay_3", 0.1)
    assert (second["accuracy_interval"], told["pairs"]) == (None, {})
    settings, metrics = tables.tables(comparison)
    assert tables.rows_of(settings)[1:] == [["decay_0", "0.0"], ["decay_3", "1.0"]]
    assert metrics.title == "Metrics: mean ± standard deviation"
    assert tables.rows_of(metrics) == [
        ["run", "l2", "seeds", "train_loss"],
        ["decay_0", "0.2500 ± 0.1", "20", "-"],
        ["decay_3", "1.250", "20", "0.2500"],
    ]
    comparison.notes.append("[red]no markup[/red]")
    tables.show(comparison)
    assert "[red]no markup[/red]" in capsys.readouterr().out


# --- sweeps -------------------------------------------------------------------------------------

VALUES = {
    "batch_size": st.just(256),
    "data.seed": st.integers(0, 2),
    "dropout": st.sampled_from([[], [0.5], None]),
    "hidden": st.sampled_from([[], [16], [16, 16]]),
    "lr": st.sampled_from([0.1, 1, 1.0]),
    "optimizer": st.sampled_from(["adam", "sgd"]),
    "seed": st.integers(0, 3),
}
SWEEPS = st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=12)


def points(runs: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Points of runs whose metric is their number."""
    settings = {f"run {i}": run for i, run in enumerate(runs)}
    metrics = {name: {"number": i} for i, name in enumerate(settings)}
    curves = {name: {"number": [i, i]} for i, name in enumerate(settings)}
    return side_by_side.points(settings, metrics, curves)


@given(SWEEPS)
def test_each_run_is_in_one_point_with_those_that_differ_in_seeds(runs: list[dict]) -> None:
    of_sweep = points(runs)
    groups = [point.metrics["number"] for point in of_sweep]
    assert sorted(number for group in groups for number in group) == list(range(len(runs)))
    assert [point.curves["number"] for point in of_sweep] == [[[i, i] for i in g] for g in groups]
    names = VALUES.keys() - {"data.seed", "seed"}
    same = [{tuple(rank(runs[i].get(name)) for name in names) for i in group} for group in groups]
    assert all(len(settings) == 1 for settings in same)
    assert len(set.union(*same)) == len(groups)


@given(SWEEPS)
def test_swept_settings_tell_points_apart_in_their_order(runs: list[dict]) -> None:
    of_sweep = points(runs)
    ranks = [[*map(rank, point.settings.values())] for point in of_sweep]
    assert all(a < b for a, b in pairwise(ranks))
    names = {tuple(point.settings) for point in of_sweep}
    assert len(names) == 1 and not {"seed", "data.seed"}.intersection(*names)
    assert [p.settings for p in points(runs[::-1])] == [p.settings for p in of_sweep]


def swept(*runs: tuple[Any, ...], names: Sequence[str]) -> list[str]:
    return list(points([dict(zip(names, run, strict=True)) for run in runs])[0].settings)


def test_what_follows_from_another_setting_was_not_swept() -> None:
    variants = ([], [], 0.1), ([0.0], [256], 0.1), ([0.2, 0.5], [256, 256], 0.5)
    assert swept(*variants, names=["dropout", "hidden", "lr"]) == ["hidden"]
    by_rate = [(*variant[:2], lr) for variant, lr in product(variants, (0.1, 0.5))]
    assert swept(*by_rate, names=["dropout", "hidden", "lr"]) == ["hidden", "lr"]
    at_random = [([37], 0.12, 0.9), ([112], 0.034, 0.5), ([64], 0.5, 0.7)]
    names = ["hidden", "lr", "momentum"]
    assert swept(*at_random, names=names) == names


def test_what_is_not_finite_is_missing() -> None:
    metrics = {str(i): {"loss": loss} for i, loss in enumerate((math.nan, None, math.inf, 0.5))}
    metrics["no loss"] = {}
    (point,) = side_by_side.points({name: {} for name in metrics}, metrics, {})
    assert (point.metrics, point.curves) == ({"loss": [0.5]}, {})
