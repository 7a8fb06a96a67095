"""What is told of runs side by side is what they left."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reporting import side_by_side
from refashion.reporting.side_by_side import Comparison
from refashion.runs import listing
from refashion.tracking import published, store
from synthetic import write_study, write_workspace


def of(workspaces: Mapping[str, Workspace], *names: str) -> Comparison:
    """Set side by side what is named as workspace and variant."""
    split = [name.rsplit(" ", 1) for name in names]
    return side_by_side.of(listing.variant(workspaces[where], variant) for where, variant in split)


def test_variants_of_one_workspace(workspaces: dict[str, Workspace]) -> None:
    comparison = of(workspaces, "main softmax", "main mlp", "main dropout")
    assert list(comparison.runs) == ["dropout", "mlp", "softmax"]
    assert comparison.dataset == "fashion_mnist"
    told = comparison.as_dict()
    mlp = told["runs"]["mlp"]
    assert told["runs"]["dropout"]["settings"] == {"hidden": [256, 256], "lr": 0.5}
    assert (mlp["run"], mlp["metrics"]["test_accuracy"]) == ("mlp", pytest.approx(51 / 60))
    interval = binomtest(51, 60).proportion_ci(method="wilson")
    assert mlp["accuracy_interval"] == pytest.approx(list(interval))
    assert (told["seeds"], told["notes"]) == ({}, [])


def test_pairs_are_tested(workspaces: dict[str, Workspace]) -> None:
    pairs = of(workspaces, "main softmax", "main mlp", "seed 2 mlp").as_dict()["pairs"]
    first, *others = pairs
    assert first == "mlp seed=0 vs mlp seed=2"
    assert others == ["mlp seed=0 vs softmax", "mlp seed=2 vs softmax"]
    pair = pairs[first]
    assert (pair["only_first"], pair["only_second"]) == (9, 0)
    assert pair["p_value"] == pytest.approx(binomtest(0, 9).pvalue)
    assert (pair["p_holm"], pair["better"]) == (3 * pair["p_value"], "mlp seed=0")


def test_names_tell_what_sets_namesakes_apart(workspaces: dict[str, Workspace]) -> None:
    comparison = of(workspaces, "main mlp", "seed 1 mlp", "lr 0.2 mlp", "main softmax")
    mlps = ["mlp lr=0.1 seed=0", "mlp lr=0.1 seed=1", "mlp lr=0.2 seed=0"]
    assert list(comparison.runs) == [*mlps, "softmax"]


def test_runs_that_differ_in_seed_alone_are_summed_up(workspaces: dict[str, Workspace]) -> None:
    names = ("seed 2 mlp", "main mlp", "lr 0.2 mlp", "seed 1 mlp", "main dropout")
    comparison = of(workspaces, *names)
    ((name, group),) = comparison.seeds.items()
    assert (name, group.seeds) == ("mlp", [0, 1, 2])
    accuracies = np.array([51, 48, 42]) / 60
    assert group.metrics["test_accuracy"] == pytest.approx(accuracies.mean())
    assert group.metrics["test_accuracy_std"] == pytest.approx(accuracies.std(ddof=1))
    assert group.metrics["test_macro_f1"] == 0.85
    assert of(workspaces, *reversed(names)).as_dict() == comparison.as_dict()


def test_one_run_alone(workspaces: dict[str, Workspace]) -> None:
    comparison = of(workspaces, "main mlp")
    assert comparison.settings == {"mlp": {}}
    assert comparison.seeds == comparison.tests["pairs"] == {}


def test_outcomes_of_one_key_are_told_apart_and_not_summed_up(
    workspaces: dict[str, Workspace], ids: dict[str, str], tmp_path: Path
) -> None:
    chosen = [ids["main mlp"], ids["seed 1 mlp"], ids["diverged mlp"]]
    with store.connect(workspaces["main"], reading=True) as connected:
        found = map(connected.client.get_run, chosen)
        read = [published.read(run, tmp_path / run.info.run_id, connected) for run in found]
    comparison = side_by_side.of([r.run for r in read], {r.run: r.id for r in read})
    same = sorted(f"mlp {run_id[:8]}" for run_id in (chosen[0], chosen[2]))
    assert list(comparison.runs) == sorted([*same, "mlp seed=1"])
    assert set(comparison.ids.values()) == set(chosen)
    assert comparison.seeds == {}
    (note,) = comparison.notes
    assert note.startswith(f"{same[0]} and {same[1]}: the same settings, data and seed gave")


def test_runs_of_a_study_are_compared_like_any_other(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_study(workspace, "weight_decay", "decay_0", "decay_3")
    told = side_by_side.of(listing.of_study(workspace, "weight_decay")).as_dict()
    first, second = told["runs"]["decay_0"], told["runs"]["decay_3"]
    assert [run["settings"] for run in (first, second)] == [{"weight_decay": d} for d in (0.0, 1.0)]
    assert second["run"] == "weight_decay/decay_3"
    assert second["metrics"]["l2_std"] == 0.1
    assert (second["accuracy_interval"], told["pairs"]) == (None, {})


def test_what_cannot_be_compared_is_refused(
    workspaces: dict[str, Workspace], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"different data sets, fashion_mnist and mnist; choose"):
        of(workspaces, "main mlp", "mnist softmax")
    other = write_workspace(tmp_path)
    file = tmp_path / "reports/evaluation/mlp/predictions.csv"
    *lines, _ = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines))
    with pytest.raises(UserError, match="mlp and softmax: measured on different test sets; choose"):
        of({**workspaces, "other": other}, "main softmax", "other mlp")
