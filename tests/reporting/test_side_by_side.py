"""What is told of runs side by side is what they left."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from refashion.base.workspace import Workspace
from refashion.reporting import side_by_side, tables
from refashion.reporting.side_by_side import Comparison
from refashion.runs import listing
from synthetic import write_run, write_study


def of(workspaces: Mapping[str, Workspace], *names: str) -> Comparison:
    """Set side by side what is named as workspace and variant."""
    split = [name.rsplit(" ", 1) for name in names]
    return side_by_side.of(listing.variant(workspaces[where], variant) for where, variant in split)


def shown(comparison: Comparison) -> str:
    return "\n".join(tables.lines(tables.tables(comparison), comparison.notes))


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


def test_means_whose_settings_begin_alike_are_all_shown(tmp_path: Path) -> None:
    workspace, wide = Workspace(tmp_path), [256] * 6
    for i, (last, seed) in enumerate(product((256, 64), (0, 1))):
        row = {"train_loss": float(i)}
        changes = {"hidden": [*wide, last], "seed": seed}
        write_run(workspace, f"s/m.trial_{i}", [row], row, params=changes)
    told = side_by_side.of(listing.of_study(workspace, "s")).as_dict()
    assert [group["seeds"] for group in told["seeds"].values()] == [[0, 1], [0, 1]]


def test_runs_of_a_study_are_compared_like_any_other(tmp_path: Path) -> None:
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
    assert "[red]no markup[/red]" in shown(comparison)


@pytest.mark.parametrize("columns", [20, 80, 120])
def test_a_narrow_terminal_folds_long_names_and_shows_every_number(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    for i in range(2):
        params = {"hidden": [256] * 9, "lr": i + 0.125, "batch_size": 32 + i, "momentum": i}
        row = {"test_accuracy": 0.75, "test_macro_f1": 0.5, "validation_loss": i + 0.375}
        write_run(workspace, f"s/{'long ' * 15}{i}", [], row, params=params)
    monkeypatch.setenv("COLUMNS", str(columns))
    told = shown(side_by_side.of(listing.of_study(workspace, "s")))
    for number in ("0.125", "1.125", "33", "0.7500", "0.5000", "0.3750", "1.375"):
        assert f" {number} " in told
    assert told.count("long") >= 2 * 15
    if columns > 80:
        assert max(map(len, told.splitlines())) <= columns


def test_what_is_no_terminal_shows_all_names_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    names = [f"{'long_' * 9}{i}" for i in range(2)]
    for name in names:
        write_run(workspace, f"s/{name}", [], {f"a_metric_{i}": i for i in range(20)})
    comparison = side_by_side.of(listing.of_study(workspace, "s"))
    monkeypatch.delenv("COLUMNS", raising=False)
    told = shown(comparison)
    assert all(text in told for text in (*names, *(f"a_metric_{i} " for i in range(20))))
