"""Which runs a checkout has."""

from pathlib import Path

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import listing
from synthetic import write_study, write_workspace

VARIANTS = ["softmax", "mlp", "dropout"]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Variants, a study, and a study with a pipeline of its own."""
    workspace = write_workspace(tmp_path)
    write_study(workspace, "weight_decay", "decay_0", "decay_3")
    write_study(workspace, "k_fold", "ape.fold_1", parent="mlp")
    for record in workspace.study_folder("k_fold").glob("*/record.json"):
        text = record.read_text()  # the stage is no part of the key
        record.write_text(text.replace("study@k_fold", "stages/k_fold/dvc.yaml:k_fold"))
    return workspace


def names(runs: list[listing.Run]) -> list[str]:
    return [run.name for run in runs]


def test_runs_that_sum_up_others_come_first(workspace: Workspace) -> None:
    studies = ["k_fold/mlp", "k_fold/ape.fold_1", "weight_decay/decay_0", "weight_decay/decay_3"]
    assert names(listing.everything(workspace)) == [*VARIANTS, *studies]
    assert names(listing.of_study(workspace, "k_fold")) == studies[:2]
    assert listing.of_study(workspace, "initialisation") == []


def test_variants_are_those_of_params_whatever_else_these_hold(workspace: Workspace) -> None:
    """An older or newer commit's file has other keys; models that it lacks are stale."""
    workspace.params_file.write_text("new: 1\nvariants: {mlp: {depth: 3}, no: , 1e3_: }\n")
    assert [run.title for run in listing.variants(workspace)] == ["mlp", "no", "1e3_"]
    assert listing.variants(workspace)[0].record.name == "mlp"
    titles = [run.title for run in listing.of_pipeline(workspace)]
    assert titles == ["mlp", "no", "1e3_", "weight_decay/decay_0", "weight_decay/decay_3"]


@pytest.mark.parametrize("text", ["variants: {", "variants: 5", "variants: softmax"])
def test_params_that_cannot_be_read_are_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"^params\.yaml: [^\n]+$"):
        listing.variants(Workspace(tmp_path))


@pytest.mark.parametrize("text", ["variants:\n", "lr: 0.1\n"])
def test_no_variants(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    assert listing.everything(Workspace(tmp_path)) == []


def test_a_run_is_found_by_its_name(workspace: Workspace) -> None:
    for name in ("mlp", "weight_decay/decay_3"):
        run = listing.find(workspace, name)
        assert run.name == name
        assert run.log is not None and run.log["device_name"] == "A Processor"
    with pytest.raises(UserError, match=r"^decay_3: no run of that name here; there are softmax, "):
        listing.find(workspace, "decay_3")
