"""What `make` does before it has an environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A folder with the Makefile, and with files that its environment follows from."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(root / name, tmp_path)
    (tmp_path / "requirements.lock").write_text("")
    return tmp_path


def make(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = ["make", f"PYTHON={sys.executable}", *arguments]
    environment = os.environ | variables
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_dry_run_runs_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = make(folder, "--dry-run", "repro")
    assert done.returncode == 0, done.stderr
    assert "dvc repro" in done.stdout and "NOT THE REAL DATA" in done.stdout
    assert sorted(folder.rglob("*")) == before


def test_a_path_in_which_python_makes_no_environment(folder: Path) -> None:
    named = folder.rename(folder.with_name("a:b"))
    done = make(named, "environment")
    assert done.returncode == 2 and not (named / ".venv").exists()
    assert f"error: {named}: Python creates no environment in a path with ':'; move" in done.stderr


@pytest.mark.ci
def test_an_environment_without_pip_is_made_anew(folder: Path) -> None:
    """Ctrl-C in its first seconds leaves one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=folder, check=True)
    programs = folder / "programs"
    programs.mkdir()
    (programs / "uv").symlink_to(shutil.which("true") or "")
    done = make(folder, "environment", PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    pip = [folder / ".venv/bin/python", "-m", "pip", "--version"]
    assert subprocess.run(pip, capture_output=True).returncode == 0
