"""What is told of trainings side by side is what they left."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binomtest

from refashion.base.errors import UserError
from refashion.reporting import side_by_side
from refashion.reporting.side_by_side import Comparison
from refashion.tracking import runs, store
from refashion.tracking.results import Results


def of(roots: Mapping[str, Path], *sides: str) -> Comparison:
    """Set side by side what is named as workspace and variant."""
    split = [side.rsplit(" ", 1) for side in sides]
    return side_by_side.of([Results(root=roots[root], variant=variant) for root, variant in split])


def test_variants_of_one_workspace(roots: dict[str, Path]) -> None:
    found = of(roots, "main softmax", "main mlp", "main dropout")
    assert list(found.sides) == ["dropout", "mlp", "softmax"]
    assert found.dataset == "fashion_mnist"
    assert set(found.apart) == {"hidden", "dropout", "lr"}
    told = found.as_dict()
    assert told["runs"]["dropout"]["settings"]["hidden"] == [256, 256]
    assert told["runs"]["mlp"]["metrics"]["accuracy"] == pytest.approx(51 / 60)
    interval = binomtest(51, 60).proportion_ci(method="wilson")
    assert told["runs"]["mlp"]["accuracy_interval"] == pytest.approx(list(interval))
    assert (told["seeds"], told["notes"]) == ({}, [])


def test_pairs_are_tested(roots: dict[str, Path]) -> None:
    pairs = of(roots, "main softmax", "main mlp", "seed 2 mlp").as_dict()["pairs"]
    first, *others = pairs
    assert first == "mlp seed=0 vs mlp seed=2"
    assert others == ["mlp seed=0 vs softmax", "mlp seed=2 vs softmax"]
    pair = pairs[first]
    assert (pair["only_first"], pair["only_second"]) == (9, 0)
    assert pair["p_value"] == pytest.approx(binomtest(0, 9).pvalue)
    assert (pair["p_holm"], pair["better"]) == (3 * pair["p_value"], "mlp seed=0")


def test_names_tell_what_sets_namesakes_apart(roots: dict[str, Path]) -> None:
    found = of(roots, "main mlp", "seed 1 mlp", "lr 0.2 mlp", "main softmax")
    assert list(found.sides) == [
        "mlp lr=0.1 seed=0",
        "mlp lr=0.1 seed=1",
        "mlp lr=0.2 seed=0",
        "softmax",
    ]


def test_runs_that_differ_in_seed_alone_are_summed_up(roots: dict[str, Path]) -> None:
    sides = ("seed 2 mlp", "main mlp", "lr 0.2 mlp", "seed 1 mlp", "main dropout")
    found = of(roots, *sides)
    ((name, group),) = found.seeds.items()
    assert (name, group.seeds) == ("mlp", [0, 1, 2])
    accuracies = np.array([51, 48, 42]) / 60
    assert group.mean["accuracy"] == pytest.approx(accuracies.mean())
    assert group.standard_deviation["accuracy"] == pytest.approx(accuracies.std(ddof=1))
    assert group.mean["macro_f1"] == 0.85
    assert of(roots, *reversed(sides)).as_dict() == found.as_dict()


def test_groups_are_named_like_runs(roots: dict[str, Path]) -> None:
    found = of(roots, "main softmax", "seed 1 softmax", "main mlp", "seed 1 mlp")
    assert list(found.seeds) == ["mlp", "softmax"]


def test_one_training_alone(roots: dict[str, Path]) -> None:
    found = of(roots, "main mlp")
    assert list(found.sides) == ["mlp"]
    assert (found.apart, found.seeds, found.tested["pairs"]) == ([], {}, {})


def test_outcomes_of_one_key_are_told_apart_and_not_summed_up(
    ids: dict[str, str], tmp_path: Path
) -> None:
    chosen = [ids["main mlp"], ids["seed 1 mlp"], ids["diverged mlp"]]
    with store.connect(reading=True) as there:
        found = side_by_side.of(
            runs.read(there.client.get_run(run_id), tmp_path / run_id, there) for run_id in chosen
        )
    same = sorted(f"mlp {run_id[:8]}" for run_id in (chosen[0], chosen[2]))
    assert list(found.sides) == sorted([*same, "mlp seed=1"])
    assert found.seeds == {}
    (note,) = found.notes
    assert note.startswith(f"{same[0]} and {same[1]}: the same settings, data and seed came out")


def test_what_cannot_be_compared_is_refused(
    roots: dict[str, Path], made_up: SimpleNamespace, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"different data sets, fashion_mnist and mnist; choose"):
        of(roots, "main mlp", "mnist softmax")
    made_up.write_results(tmp_path)
    file = tmp_path / "reports/evaluation/mlp/predictions.csv"
    *lines, _ = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines))
    other = {**roots, "other": tmp_path}
    with pytest.raises(UserError, match="mlp and softmax: measured on different test sets; choose"):
        of(other, "main softmax", "other mlp")
