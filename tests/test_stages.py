"""What stands in the way of a stage is told in one line, and the former results stay."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import tiny
from refashion.base import files
from refashion.base.workspace import Workspace

STAGES = Path(__file__).parents[1] / "stages"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A checkout with data and settings, but without code."""
    here = tiny.write_data(tmp_path)
    files.write_text(here.params_file, yaml.safe_dump(tiny.params().model_dump(mode="json")))
    files.write_text(tmp_path / "dvc.yaml", "stages: {}\n")
    return here


def run(workspace: Workspace, *stage: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, STAGES, *stage],
        cwd=workspace.root,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


def folder_for_file(workspace: Workspace) -> str:
    file = workspace.models / "softmax" / "history.csv"
    (file / "inner").mkdir(parents=True)
    return f"{file}: Is a directory; move away what is in the way, then run it again"


def pipe_for_file(workspace: Workspace) -> str:
    file = workspace.train / "labels.npy"
    file.unlink()
    os.mkfifo(file)
    return f"{file}: not a sound array"


def settings_as_pipe(workspace: Workspace) -> str:
    workspace.params_file.unlink()
    os.mkfifo(workspace.params_file)
    return "is in no checkout of this project"


@pytest.mark.parametrize("hinder", [folder_for_file, pipe_for_file, settings_as_pipe])
def test_what_stands_in_the_way_of_a_training(
    hinder: Callable[[Workspace], str], workspace: Workspace
) -> None:
    told = hinder(workspace)
    code, line = run(workspace, "train", "softmax")
    assert code == 2
    assert line.startswith("error: ") and told in line
    assert not list(workspace.root.rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("stage", "usage"),
    [
        (("train",), "run python stages train VARIANT"),
        (("check", "softmax"), "run python stages check"),
    ],
)
def test_other_arguments_are_told_how_to_be_given(
    stage: tuple[str, ...], usage: str, workspace: Workspace
) -> None:
    code, line = run(workspace, *stage)
    assert code == 2
    assert line == f"error: stage {stage[0]}: takes other arguments; {usage}"


def test_a_file_from_the_future_is_not_changed_meanwhile(workspace: Workspace) -> None:
    """A clock that was put back, or a file server's."""
    os.utime(workspace.params_file, (time.time() + 9999,) * 2)
    done = subprocess.run([sys.executable, STAGES, "check"], cwd=workspace.root)
    assert done.returncode == 0


def test_what_a_killed_stage_has_left_goes_with_the_next(workspace: Workspace) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    temporary = (
        workspace.models / "softmax" / f".history.csv.{os.uname().nodename}.{process.pid}.tmp"
    )
    files.write_text(temporary, "")
    assert run(workspace, "train", "softmax")[0] == 0
    assert not temporary.exists() and (workspace.models / "softmax" / "history.csv").exists()
