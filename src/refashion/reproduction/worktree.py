"""A checkout of its own, where anything can be run again without touching the user's."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.tracking.context import LEFT_OUT

DOWNLOADS = {"download": paths.RAW, "download_houses": paths.HOUSES}
"""Stages whose outputs a rerun may take from the cache: checksums pin them."""

BELONGS_TO_EXPERIMENT = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE", "REPRO_DRY")


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What a checkout must hold for a result to come out again."""

    commit: str
    """Full hash."""

    diff: bytes = b""
    """Changes on top of the commit, for ``git apply``."""

    params: bytes | None = None
    """Content of ``params.yaml``; None: that of the commit with the changes."""

    lock: bytes | None = None
    """Content of ``dvc.lock``, likewise."""


def git(*arguments: str, folder: Path = paths.ROOT, feed: bytes = b"") -> bytes:
    """Return what a git command prints.

    Raises
    ------
    UserError
        If it fails; with git's own reason.
    """
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    done = subprocess.run(command, cwd=folder, input=feed, capture_output=True)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise UserError(f"git {arguments[0]}: {reason}")
    return done.stdout


def resolve(revision: str) -> str | None:
    """Return the full hash of a commit or of a DVC experiment, by any name that git or DVC has."""
    names = [revision, *(r for r in _experiment_refs() if r.rpartition("/")[2] == revision)]
    for name in reversed(names):
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return done.stdout.strip()
    return None


def require(revision: str) -> str:
    """Return what `resolve` does.

    Raises
    ------
    UserError
        If there is no such revision.
    """
    commit = resolve(revision)
    if commit is None:
        raise UserError(f"{revision}: no such revision; name a commit, branch or tag")
    return commit


def experiments() -> dict[str, tuple[str, str]]:
    """DVC's experiments of this repository: name to the commit and the one it started from."""
    found = {}
    for ref in _experiment_refs():  # refs/exps/<two digits>/<the others>/<name>
        *_, two, others, name = ref.split("/")
        found[name] = (git("rev-parse", ref).decode().strip(), two + others)
    return found


def _experiment_refs() -> list[str]:
    refs = git("for-each-ref", "--format=%(refname)", "refs/exps").decode().split()
    return [ref for ref in refs if len(ref.split("/")) == 5]


@contextmanager
def checkout(state: State) -> Iterator[Path]:
    """Lend a checkout in a temporary folder; it goes at the end, on Ctrl-C too.

    Raises
    ------
    UserError
        If the commit is not in this repository, or the changes do not apply to it.
    """
    if resolve(state.commit) is None:
        raise UserError(
            f"commit {state.commit}: is not in this repository; fetch it "
            "(`git fetch --all`), or ask whoever made the run to push it"
        )
    with tempfile.TemporaryDirectory(prefix="refashion-") as folder:
        root = Path(folder) / "project"
        try:
            git("worktree", "add", "--detach", "--quiet", str(root), state.commit)
            _apply(state, root)
            _configure_dvc(root)
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)
            git("worktree", "prune")


def _apply(state: State, root: Path) -> None:
    lines = state.diff.splitlines(keepends=True)
    for line in lines:
        if line.startswith(LEFT_OUT):
            name = line.removeprefix(LEFT_OUT).decode(errors="replace").strip()
            print(f"warning: {name}: was too large to be kept with the run", file=sys.stderr)
    if any(line.startswith(b"diff --git ") for line in lines):
        try:
            git("apply", "--whitespace=nowarn", "-", folder=root, feed=state.diff)
        except UserError as error:
            raise UserError(
                f"uncommitted changes of the run: do not apply to its commit {state.commit[:12]} "
                f"({error}); the run cannot be brought back"
            ) from None
    for name, content in (("params.yaml", state.params), ("dvc.lock", state.lock)):
        if content is not None:
            (root / name).write_bytes(content)


def _configure_dvc(root: Path) -> None:
    """Give the checkout the user's own cache and remotes, to read from."""
    from dvc.config import Config
    from dvc.repo import Repo

    own = paths.ROOT / ".dvc" / "config.local"
    if own.exists():
        shutil.copyfile(own, root / ".dvc" / "config.local")
    with Repo(str(paths.ROOT)) as repo:
        cache = repo.cache.local_cache_dir
    with Config(str(root / ".dvc")).edit("local") as config:
        config["cache"]["dir"] = cache
        config["core"]["no_scm"] = True  # git's own folder is elsewhere


def dvc(arguments: Sequence[str], root: Path) -> "subprocess.CompletedProcess[str]":
    """Run a short command of DVC quietly."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True)


def fetch(files: Iterable[Path], root: Path) -> None:
    """Bring files that `paths` names into a checkout, those that DVC's cache or remote has."""
    names = [str(file.relative_to(paths.ROOT)) for file in files]
    if dvc(["checkout", *names], root).returncode:
        dvc(["pull", *names], root)


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a stage that belongs to no experiment and whose main checkout is ours."""
    own = {k: v for k, v in os.environ.items() if k not in BELONGS_TO_EXPERIMENT}
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
    return {**own, "PATH": binaries, "DVC_ROOT": str(paths.MAIN_ROOT), **(changes or {})}


def rerun(root: Path, targets: Sequence[str], changes: Mapping[str, str] | None = None) -> None:
    """Run stages and all that they need, nothing out of a cache but the downloaded files.

    Parameters
    ----------
    root : Path
        Of a `checkout`.
    targets : sequence of str
        Stages, as DVC addresses them.
    changes : mapping, optional
        Environment variables to set.

    Raises
    ------
    UserError
        If no source has the data, or a stage fails.
    """
    lock = root / "dvc.lock"
    locked = read_lock(lock.read_bytes()) if lock.exists() else {}
    # A stage that the lock does not know must run; outputs in git must not stand in for its own.
    kept = {name: locked[name] for name in DOWNLOADS if name in locked}
    lock.write_text(yaml.safe_dump({"schema": "2.0", "stages": kept}))
    if kept:
        fetch([DOWNLOADS[name] for name in kept], root)
    for folder in (paths.MODELS, paths.REPORTS):
        shutil.rmtree(root / folder.relative_to(paths.ROOT), ignore_errors=True)
    command = [sys.executable, "-m", "dvc", "repro", "--no-commit", "--no-run-cache", *targets]
    done = subprocess.run(command, cwd=root, env=environment(changes), stdout=sys.stderr)
    no_source = root / paths.NO_SOURCE.relative_to(paths.ROOT)
    if no_source.exists():
        raise UserError(no_source.read_text(encoding="utf-8").strip())
    if done.returncode < 0 or done.returncode == 130:
        raise KeyboardInterrupt
    if done.returncode:
        raise UserError(f"{' '.join(targets)}: a stage failed, as told above; mend that first")


def read_lock(content: bytes) -> dict[str, dict[str, Any]]:
    """Stages of a ``dvc.lock``, by name."""
    return dict((yaml.safe_load(content) or {}).get("stages") or {})


def outputs(lock: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Digest of every output that a ``dvc.lock`` tells of, by path, in the stages' order."""
    return {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}
