"""The stage: a line for each run, where to look, and a warning that nobody overlooks."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from servers import environment
from synthetic import write_variant

Track = Callable[..., tuple[list[str], str]]


@pytest.fixture
def track(
    workspace: Workspace,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Track:
    """Give the stage, which runs in the workspace and returns its lines and its warnings."""
    spec = importlib.util.spec_from_file_location("track", root / "stages" / "track.py")
    assert spec and spec.loader
    stage = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stage)
    monkeypatch.setattr(Workspace, "here", lambda: workspace)

    def run(*arguments: str) -> tuple[list[str], str]:
        stage.main(*arguments)
        told = capsys.readouterr()
        return told.out.splitlines(), told.err

    return run


VARIANTS = ["softmax", "mlp", "dropout"]
STUDIES = [
    *("k_fold/mlp", "k_fold/mlp.fold_1", "k_fold/mlp.fold_2"),
    *("weight_decay/decay_0", "weight_decay/decay_3"),
]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], VARIANTS + STUDIES),
        (["mlp"], ["mlp"]),
        (["k_fold", "weight_decay"], STUDIES),
        (["weight_decay"], STUDIES[3:]),
    ],
)
def test_every_run_that_is_asked_for_is_told(
    track: Track, arguments: list[str], names: list[str]
) -> None:
    (*lines, last), warnings = track(*arguments)
    assert [line.rsplit(" ", 1)[0] for line in lines] == [f"{n}: published, run" for n in names]
    assert (last, warnings) == ("see them: make ui", "")
    again, _ = track(*arguments)
    assert again == [line.replace("published", "already there") for line in [*lines, last]]


def test_unknown_name_is_refused(track: Track) -> None:
    with pytest.raises(UserError, match=r"^mpl: no variant and no study with runs here"):
        track("mpl")


def test_divergence_is_a_warning(track: Track, workspace: Workspace) -> None:
    (first, _), _ = track("mlp")
    write_variant(workspace, "mlp", "another outcome")
    (second, _), warning = track("mlp")
    assert second.startswith("mlp: divergence, run ")
    assert warning.startswith("warning: mlp: ") and warning.count("\n") == 1
    assert first.removeprefix("mlp: published, ") in warning


def test_experiment_in_a_temporary_folder_reaches_the_users_database(
    workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    shutil.copytree(workspace.root, temporary, ignore=shutil.ignore_patterns("mlflow.db"))
    for folder in ("src", "stages"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(root / folder, temporary / folder, ignore=ignored)
    done = subprocess.run(
        [sys.executable, "stages", "track", "mlp"],
        cwd=temporary,
        env=environment(DVC_ROOT=str(workspace.root), DVC_EXP_NAME="puffy-hake"),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (temporary / "mlflow.db").exists()
    artifacts = workspace.root.glob("mlflow-artifacts/fashion_mnist/*/artifacts/figures/*.png")
    assert "learning_curves.png" in {file.name for file in artifacts}
