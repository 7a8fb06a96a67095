"""The stage: a line for each run, where to look, and a warning that nobody overlooks."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from refashion.base import paths


@pytest.fixture
def whole(checkout: Path) -> Path:
    """Give a checkout with the code."""
    for folder in ("src", "stages"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(paths.ROOT / folder, checkout / folder, ignore=ignored)
    return checkout


def track(
    root: Path, made_up: SimpleNamespace, **variables: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "stages", "track"],
        cwd=root,
        env=made_up.environment(**variables),
        capture_output=True,
        text=True,
    )


def test_track(whole: Path, made_up: SimpleNamespace) -> None:
    (whole / "mlflow.db").unlink()
    first = track(whole, made_up)
    assert (first.returncode, first.stderr) == (0, "")
    *lines, last = first.stdout.splitlines()
    told = [line.rsplit(" ", 1) for line in lines]
    assert [line for line, _ in told] == [
        f"{variant}: published, run" for variant in ("softmax", "mlp", "dropout")
    ]
    assert last == "see them: make ui"

    (mlp,) = [run for line, run in told if line.startswith("mlp")]
    made_up.write_results(whole, mlp="another outcome")
    second = track(whole, made_up)
    assert second.returncode == 0
    assert [line.split(",")[0] for line in second.stdout.splitlines()[:3]] == [
        "softmax: already there",
        "mlp: divergence",
        "dropout: already there",
    ]
    (warning,) = second.stderr.splitlines()
    assert warning.startswith("warning: mlp: ")
    assert mlp in warning


def test_experiment_in_a_temporary_folder_reaches_the_users_database(
    whole: Path, tmp_path: Path, made_up: SimpleNamespace
) -> None:
    temporary = shutil.copytree(whole, tmp_path / "temporary")
    (temporary / "mlflow.db").unlink()
    done = track(temporary, made_up, DVC_ROOT=str(whole), DVC_EXP_NAME="puffy-hake")
    assert (done.returncode, done.stderr) == (0, "")
    assert not (temporary / "mlflow.db").exists()
    assert len(list(whole.glob("mlflow-artifacts/fashion_mnist/*/artifacts/record.json"))) == 3
