"""A run on disk: canonical, complete, the same every time, and checked when it is read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import synthetic
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import write
from refashion.runs.run import PREDICTIONS, Run, in_checkout
from refashion.training import digest

WEIGHTS = {"layers.0.weight": torch.tensor([[1.0, -0.5]]), "layers.0.bias": torch.zeros(2)}
HISTORY = [
    {"train_loss": 0.1 + 0.2, "validation_loss": float("nan"), "weights_sha256": "a" * 64},
    {"train_loss": 1e-05, "validation_loss": None, "weights_sha256": "b" * 64, "late": 3},
]


def write_run(root: Path, seconds: float = 1.5) -> Run:
    done = write.write(
        Workspace(root),
        synthetic.record("mlp", data={"dataset": "digits", "limit": None}, params={"lr": 0.1}),
        HISTORY,
        digest=digest.weights(WEIGHTS),
        weights=WEIGHTS,
        tables={"submission.csv": (["Id", "SalePrice"], [["7", 0.1], ["8, é", 2]])},
        metrics={"loss": 0.25},
        timings={"seconds": seconds},
    )
    return in_checkout(Workspace(root), done)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_run(tmp_path)


# --- what is written --------------------------------------------------------------------------


def test_files_are_canonical(run: Run) -> None:
    contents = {file.name: file.read_bytes() for file in run.files}
    assert list(contents) == [
        *("history.csv", "metrics.json", "record.json", "submission.csv", "weights.safetensors"),
    ]
    for name in ("metrics.json", "record.json"):
        content = json.loads(contents[name])
        assert contents[name].decode() == json.dumps(content, indent=2, sort_keys=True) + "\n"
    assert contents["history.csv"].decode() == (
        "epoch,train_loss,validation_loss,weights_sha256,late\n"
        f"1,0.30000000000000004,,{'a' * 64},\n"
        f"2,1e-05,,{'b' * 64},3\n"
    )
    assert contents["submission.csv"].decode() == 'Id,SalePrice\n7,0.1\n"8, é",2\n'
    of_weights = digest.weights(load_file(run.file("weights.safetensors")))
    assert of_weights == digest.weights(WEIGHTS)
    tables = {f: files.sha256(run.file(f)) for f in ("history.csv", "submission.csv")}
    of_files = {"weights.safetensors": of_weights, **tables}
    assert run.record.outputs == {"weights": of_weights, **of_files}
    assert run.record.files == sorted(of_files)


def test_only_files_are_files_of_a_run(run: Run) -> None:
    before = run.files
    (run.folders[0] / "notes.d").mkdir()
    (run.folders[0] / "link.csv").symlink_to("nowhere")
    assert run.files == before


def test_all_but_the_log_comes_out_the_same_again(run: Run, tmp_path: Path) -> None:
    again = write_run(tmp_path / "again", seconds=2.5)
    assert [f.read_bytes() for f in again.files] == [f.read_bytes() for f in run.files]
    assert run.log_file == tmp_path / "logs" / "mlp.json"
    assert again.log_file.read_bytes() != run.log_file.read_bytes()


# --- reading ----------------------------------------------------------------------------------


def test_reading_gives_what_was_written(run: Run) -> None:
    assert run.name == run.title == "mlp"
    assert run.settings == {"lr": 0.1, "data.dataset": "digits", "data.limit": None}
    assert run.history == {"epoch": [1, 2], "train_loss": [0.1 + 0.2, 1e-05]}
    assert run.metrics == {"loss": 0.25}
    assert run.table("submission.csv")[1] == {"Id": "8, é", "SalePrice": "2"}


def test_what_is_measured_later_lies_in_the_other_folder(run: Run) -> None:
    before = run.measured
    file = run.folders[1] / "predictions.csv"
    files.write_csv(file, PREDICTIONS, [[0, "Bag", "Coat", 0.1], [1, "Coat", "Coat", 1 / 3]])
    assert run.predictions["actual"] == ["Bag", "Coat"]
    assert run.predictions["confidence"] == ["0.1", "0.3333333333333333"]
    assert run.measured != before


@pytest.mark.parametrize("rows", ["", "0,a,b,0.5\n1,a\n", "0,a,b,0.5,c\n"])
def test_predictions_of_another_form_are_refused(run: Run, rows: str) -> None:
    for header in ("index,actual,predicted,confidence", "index,actual"):
        files.write_text(run.folders[1] / "predictions.csv", f"{header}\n{rows}")
        with pytest.raises(
            UserError, match=r"predictions\.csv: not rows of index,actual,predicted"
        ):
            _ = run.predictions


def test_a_log_is_the_runs_only_if_it_is_of_this_training(run: Run) -> None:
    log = {"seconds": 1.5, "run_key": run.record.run_key, "weights": digest.weights(WEIGHTS)}
    assert run.log == log
    files.write_json(run.log_file, {**log, "weights": "0" * 64})
    assert in_checkout(Workspace(run.folders[0].parents[1]), run.record).log is None
    run.log_file.unlink()
    assert in_checkout(Workspace(run.folders[0].parents[1]), run.record).log is None


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-20], lambda text: "\udcff"], ids=["truncated", "no text"]
)
def test_a_damaged_record_is_refused(run: Run, damage: Callable[[str], str]) -> None:
    path = run.file("record.json")
    path.write_bytes(damage(path.read_text()).encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=r"^mlp: record\.json is damaged \(.+`dvc repro`.+$"):
        _ = run.record
