"""What a user without a network sees: ``make demo``."""

import json
import subprocess
from pathlib import Path

import pytest

from code_copy import copy_code


@pytest.mark.ci
def test_the_demo_shows_models_that_learned(root: Path, tmp_path: Path) -> None:
    copy_code(root, tmp_path)
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    # The environment of this test does: nothing is installed.
    make = ["make", "--old-file=.venv/.ready", "demo"]
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "build/demo/reports/metrics.json").read_text())
    assert min(metrics["accuracy"].values()) > 0.85
    shown = subprocess.run(
        ["make", "--old-file=.venv/.ready", "--dry-run", "ui"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "build/demo/mlflow.db" in shown.stdout  # there is no other
