"""DVC at work in a checkout: what stages have made is fetched, or made again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import Popen
from typing import Any

import yaml

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data import catalogue
from refashion.reproduction import attended, isolation, lockfile, worktree
from refashion.tracking import context

DOWNLOADED = ("data/raw", "data/houses")
"""Outputs whose files may come from DVC's cache when stages run again: they have checksums."""

DVC = (sys.executable, "-P", "-m", "dvc")  # -P: not a module dvc in the working directory
EXPERIMENT_VARIABLES = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE", "REPRO_DRY")


def dvc(*arguments: str, folder: Path) -> str:
    """Return what a short command of DVC prints; UserError with DVC's own reason, if it fails."""
    command = [*DVC, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"dvc {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def fetch(files: Collection[str], root: Path) -> None:
    """Bring outputs that are not there into a checkout, those that DVC's cache or remote has."""
    for command in ("checkout", "pull"):
        missing = [file for file in files if not (root / file).exists()]
        if missing:
            with suppress(UserError):  # whoever needs a file that is still missing says so
                dvc(command, "--", *missing, folder=root)


def fetch_results(checkout: Workspace, *data: str) -> None:
    """Bring what the pipeline has made of its data into a checkout, and the data named here."""
    paths = lockfile.outputs(promised(checkout))
    fetch([p for p in paths if p in data or not p.startswith("data/")], checkout.root)


def environment() -> dict[str, str]:
    """Environment of a process that belongs to no experiment and finds this Python's programs."""
    kept = {k: v for k, v in context.environment().items() if k not in EXPERIMENT_VARIABLES}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": programs}


def rerun(
    checkout: Workspace, stages: Iterable[str], workspace: Workspace, isolated: bool = False
) -> None:
    """Run stages and all that they need, as `rerunning` says, to their end."""
    with rerunning(checkout, stages, workspace, isolated=isolated) as finish:
        finish()


@contextmanager
def rerunning(
    checkout: Workspace,
    stages: Iterable[str],
    workspace: Workspace,
    changes: Mapping[str, str] | None = None,
    isolated: bool = False,
) -> Iterator[Callable[[], None]]:
    """Start stages and all that they need, nothing out of a cache but the downloaded files.

    Stages are given as DVC addresses them, `workspace` is the user's own, and `changes` are
    environment variables to set; `isolated`: see `refashion.reproduction.isolation`. What it yields
    waits for their end. Where it was not called, they are interrupted.

    Raises
    ------
    UserError
        If no source has the data, a stage fails or leaves a link out of the checkout, or the system
        cannot isolate it.
    """
    sandbox = isolation.sandbox(checkout.root) if isolated else []
    _refuse_frozen(checkout)
    locked = lockfile.outputs(lockfile.read(checkout.root / "dvc.lock"))
    fetch([path for path in locked if path in DOWNLOADED], checkout.root)
    # The stage that downloads finds them there, and holds them to its checksums.
    given = checkout.root / ".dvc" / "tmp" / "data"
    for path in DOWNLOADED:
        with suppress(FileNotFoundError):
            shutil.copytree(checkout.root / path, given, dirs_exist_ok=True)
    for file in checkout.root.rglob("dvc.lock"):
        # DVC runs a stage that the lock does not know, and removes its former outputs first.
        files.write_text(file, yaml.safe_dump({"schema": "2.0", "stages": {}}))
    targets = list(dict.fromkeys(stages))
    variables = {**environment(), "DVC_ROOT": str(workspace.main)}
    if isolated:
        worktree.forget_remotes(checkout.root)
        variables = isolation.environment()
    if isolated or (given.exists() and catalogue.VARIABLE not in variables):
        variables[catalogue.VARIABLE] = str(given)
    command = [*sandbox, *DVC, "repro", "--no-commit", "--no-run-cache", "--", *targets]
    with attended.running(command, checkout.root, {**variables, **(changes or {})}) as process:

        def finish() -> None:
            succeeded = succeeds(process)
            worktree.refuse_links(checkout.root)
            if checkout.no_source.exists():
                raise UserError(
                    "--isolated: DVC's cache has not all data, and there is no network; run the "
                    "stage that downloads them here first, as with `dvc repro download`"
                    if isolated
                    else checkout.no_source.read_text(encoding="utf-8").strip()
                )
            if not succeeded:
                raise UserError(
                    f"{' '.join(targets)}: a stage failed, as told above; mend that first"
                )

        yield finish


def run(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> bool:
    """Run what takes long and tells of its progress on standard error; whether it succeeded.

    `KeyboardInterrupt` if it was interrupted or killed.
    """
    with attended.running(command, folder, variables) as process:
        return succeeds(process)


def succeeds(process: Popen[bytes]) -> bool:
    """Wait for a command, and say whether it succeeded; `KeyboardInterrupt` as for `run`."""
    if (code := process.wait()) == attended.INTERRUPTED or code < 0:
        raise KeyboardInterrupt
    return code == 0


def _refuse_frozen(checkout: Workspace) -> None:
    """Raise `UserError` for a stage that DVC would not run, but take as it is."""
    for file in checkout.root.rglob("dvc.yaml"):
        try:
            stages = dict(yaml.safe_load(file.read_bytes())["stages"])
        except (yaml.YAMLError, ValueError, TypeError, LookupError):  # DVC tells what is wrong
            continue
        for name in (name for name, stage in stages.items() if _is_frozen(stage)):
            place = file.relative_to(checkout.root)
            raise UserError(f"{place}: {name} is frozen, so DVC does not run it; unfreeze it")


def _is_frozen(stage: Any) -> bool:
    """Whether a stage is, or all that a ``foreach`` makes."""
    return isinstance(stage, dict) and bool(stage.get("frozen") or _is_frozen(stage.get("do")))


def promised(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Stages with outputs in ``dvc.lock``, by name, of those that the pipeline still has."""
    present = dvc("stage", "list", "--name-only", folder=workspace.root).split()
    stages = lockfile.read(workspace.root / "dvc.lock")
    return {name: stage for name, stage in stages.items() if name in present and stage.get("outs")}
