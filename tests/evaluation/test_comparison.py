import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from rich.console import Console

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.evaluation import comparison
from refashion.evaluation.statistics import holm, mcnemar, wilson
from refashion.runs import listing
from refashion.runs.run import Columns, Run
from synthetic import write_workspace


def answers(correct: np.ndarray) -> Columns:
    """Answers to a test set of one class, right where told."""
    return {"actual": ["yes"] * len(correct), "predicted": np.where(correct, "yes", "no").tolist()}


@pytest.fixture
def correct() -> dict[str, np.ndarray]:
    """Two good variants and a bad one."""
    rng = np.random.default_rng(0)
    shares = {"softmax": 0.7, "mlp": 0.84, "dropout": 0.85}
    return {name: rng.random(1000) < share for name, share in shares.items()}


@pytest.fixture
def result(correct: dict[str, np.ndarray]) -> dict:
    return comparison.compare({name: answers(c) for name, c in correct.items()})


def test_variants_have_accuracy_and_interval(result: dict, correct: dict) -> None:
    assert list(result["variants"]) == sorted(correct)
    for name, variant in result["variants"].items():
        hits = int(correct[name].sum())
        low, high = wilson(hits, 1000)
        expected = {"accuracy": hits / 1000, "low": low, "high": high}
        assert variant == {**expected, "correct": hits, "images": 1000}


def test_pairs_count_and_test_disagreements(result: dict, correct: dict) -> None:
    pairs = result["pairs"]
    assert list(pairs) == ["dropout vs mlp", "dropout vs softmax", "mlp vs softmax"]
    for names, pair in pairs.items():
        a, b = (correct[name] for name in names.split(" vs "))
        only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
        assert (pair["only_first"], pair["only_second"]) == (only_a, only_b)
        assert pair["p_value"] == mcnemar(only_a, only_b)
    adjusted = holm([pair["p_value"] for pair in pairs.values()])
    assert [pair["p_holm"] for pair in pairs.values()] == adjusted
    assert [pair["better"] for pair in pairs.values()] == [None, "dropout", "mlp"]


def test_holm_can_take_significance_away() -> None:
    """8 against 1 is significant alone (p = 0.039), and not among three pairs."""
    i = np.arange(20)
    a, b = i >= 1, (i < 1) | (i >= 9)
    pair = comparison.compare({"a": answers(a), "b": answers(b)})["pairs"]["a vs b"]
    assert (pair["only_first"], pair["only_second"], pair["better"]) == (8, 1, "a")
    three = comparison.compare({"a": answers(a), "b": answers(b), "c": answers(a)})
    assert three["pairs"]["a vs b"]["better"] is None


def test_one_variant_needs_no_pairs_and_another_test_set_is_refused() -> None:
    result = comparison.compare({"only": answers(np.ones(3, bool))})
    assert result["pairs"] == {} and len(list(comparison.tables(result))) == 1
    sides = {name: answers(np.ones(n, bool)) for name, n in (("a", 3), ("b", 4))}
    with pytest.raises(UserError, match="a and b: measured on different test sets"):
        comparison.compare(sides)


def test_tables_tell_every_variant_and_pair(result: dict) -> None:
    screen = io.StringIO()
    Console(file=screen, width=120).print(*comparison.tables(result))
    for name, pair in result["pairs"].items():
        (line,) = (line for line in screen.getvalue().splitlines() if name in line)
        assert line.rstrip("│ ").endswith(f" {pair['better'] or 'not significant'}")


# --- files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return write_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.fixture(scope="module")
def runs(workspace: Workspace) -> list[Run]:
    return listing.variants(workspace)


def test_files_say_what_the_runs_say(runs: list[Run], tmp_path: Path) -> None:
    result = comparison.write(runs, tmp_path)
    assert json.loads((tmp_path / "comparison.json").read_text()) == result
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["lr", "accuracy", "cross_entropy", "calibration_error"]
    sources = ["test_accuracy", "test_cross_entropy_nats", "test_expected_calibration_error"]
    for run in runs:
        expected = [run.record.params["lr"], *(run.metrics[name] for name in sources)]
        assert [metrics[name][run.title] for name in metrics] == expected
    accuracies = {r["run"]: float(r["accuracy"]) for r in rows(tmp_path / "accuracies.csv")}
    assert accuracies == {name: v["accuracy"] for name, v in result["variants"].items()}
    for file, source in (("curves.csv", "history.csv"), ("calibration.csv", "calibration.csv")):
        for run in runs:
            shown = [row for row in rows(tmp_path / file) if row["run"] == run.title]
            for row, original in zip(shown, run.table(source), strict=True):
                assert row.items() <= {**original, "run": run.title}.items()


def test_confusion_is_sklearns(runs: list[Run], tmp_path: Path) -> None:
    comparison.write(runs, tmp_path)
    for run in runs:
        counts = [row for row in rows(tmp_path / "confusion.csv") if row["run"] == run.title]
        classes = list(dict.fromkeys(row["actual"] for row in counts))
        expected = sklearn.metrics.confusion_matrix(
            run.predictions["actual"], run.predictions["predicted"], labels=classes
        )
        assert [int(row["images"]) for row in counts] == expected.flatten().tolist()
        assert [row["predicted"] for row in counts] == classes * 10


def test_files_do_not_depend_on_the_order_of_the_runs(runs: list[Run], tmp_path: Path) -> None:
    comparison.write(runs, tmp_path / "forth")
    comparison.write(reversed(runs), tmp_path / "back")
    for file in (tmp_path / "forth").iterdir():
        assert file.read_bytes() == (tmp_path / "back" / file.name).read_bytes()


def test_training_without_validation_leaves_cells_empty(tmp_path: Path) -> None:
    run = listing.variant(write_workspace(tmp_path), "mlp")
    run.file("history.csv").write_text("epoch,train_loss,train_accuracy\n1,0.5,0.25\n")
    comparison.write([run], tmp_path)
    assert (tmp_path / "curves.csv").read_text().splitlines()[1] == "mlp,1,0.5,,0.25,"


def test_evaluations_of_variants_that_are_gone_are_refused(workspace: Workspace) -> None:
    comparison.refuse_stale(workspace.evaluation, ["dropout", "mlp", "softmax", "not there yet"])
    with pytest.raises(UserError, match=r"evaluation/mlp: params\.yaml no longer has this variant"):
        comparison.refuse_stale(workspace.evaluation, ["dropout", "softmax"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
