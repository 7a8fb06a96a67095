"""Folders whose disk is full: what a stage cannot write is told, and what was there stays."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import injected
from campaign import Campaign, Ground, other_rate
from refashion.runs.checkpoint import VARIABLE

# A file system of 64 MiB over a folder, with its content, and so many KiB free. Other programs
# cannot see it: what is there at the end is copied to another folder.
SCRIPT = """
set -e
folder=$1 copy=$2 free=$3
shift 3
mkdir -p "$folder"
cp -a "$folder/." "$copy"
mount -t tmpfs -o size=64m full "$folder"
cp -a "$copy/." "$folder"
available=$(df -k --output=avail "$folder" | tail -1)
fallocate -l $((available - free))k "$folder/.filler"
code=0
"$@" || code=$?
rm "$folder/.filler"
rm -rf "$copy"
cp -a "$folder/." "$copy"
exit $code
"""
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("namespaces")]


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip tests where no file system can be made."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed (Debian: util-linux)")
    trial = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    done = subprocess.run(trial, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"unshare makes no file system here: {done.stderr.strip()}")


@dataclass(frozen=True)
class Full:
    """A folder whose disk is full, and a command that writes there."""

    folder: str
    command: tuple[str, ...]
    missing: tuple[str, ...]
    published: tuple[str, ...] = ()


TRAIN = ("python", "stages", "train", "mlp")
EVALUATE = ("python", "stages", "evaluate", "mlp")

WORK = {
    "data": Full("data", ("python", "stages", "preprocess"), ("data/prepared",)),
    "models": Full("models", TRAIN, ("models/mlp",)),
    "logs": Full("logs", TRAIN, ("models/mlp", "logs")),
    "build": Full("build", TRAIN, ("models/mlp", "build")),
    "reports": Full("reports", EVALUATE, ("reports/evaluation/mlp",)),
    "mlflow-artifacts": Full(
        "mlflow-artifacts",
        ("python", "stages", "track", "softmax"),
        ("mlflow-artifacts", "mlflow.db"),
        ("softmax",),
    ),
    ".dvc": Full(".dvc", ("dvc", "repro"), ()),
}

FREE = (0, 8, 96)
"""KiB that are left."""


def run(full: Full, free: int, ground: Ground) -> injected.Outcome:
    """Run the command on the full disk, and bring here what it left there."""
    folder, copy = ground.root / full.folder, ground.root.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", SCRIPT, "sh", folder, copy, str(free), *full.command],
        cwd=ground.root,
        env={**os.environ, **ground.workspace.environment, VARIABLE: "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    shutil.rmtree(folder)
    Path(copy).rename(folder)
    return injected.Outcome(done.returncode, done.stdout)


@pytest.mark.parametrize("name", WORK)
def test_full_disk(name: str, ground: Ground, campaign: Campaign, empty_database: Path) -> None:
    full, environment = WORK[name], ground.workspace.environment
    is_dvc = full.command[0] == "dvc"
    stage = full.command[2:]

    def start() -> None:
        ground.put_back(*full.missing)
        if "mlflow.db" in full.missing:
            shutil.copyfile(empty_database, ground.root / "mlflow.db")
        if is_dvc:
            other_rate(ground)

    afterwards = ground
    if is_dvc:
        start()
        assert injected.dvc(ground.root, "repro", **environment).code == 0
        afterwards = ground.now()
    with campaign.of(f"full disk under {name}") as trials:
        for free in FREE:
            start()
            outcome = run(full, free, ground)
            wrong = ["untold"] * (not is_dvc and not outcome.is_told)
            wrong += ["half_written"] * (not is_dvc and bool(ground.half_written()))
            again = [] if is_dvc else [injected.stage(ground.root, *stage, **environment)]
            again.append(injected.dvc(ground.root, "repro", **environment))
            wrong += afterwards.check(*again, published=full.published)
            trials.add(f"{free} KiB free", wrong)
