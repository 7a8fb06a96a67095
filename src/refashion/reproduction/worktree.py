"""A checkout in a folder of its own, where stages run without touching the user's."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.machine import HOST
from refashion.base.workspace import Workspace
from refashion.reproduction import isolation
from refashion.tracking.context import LEFT_OUT

DOWNLOADED = ("data/raw", "data/houses")
"""Outputs that may come from DVC's cache when stages run again: the code pins their checksums."""

DVC = (sys.executable, "-P", "-m", "dvc")  # -P: not a module dvc in the working directory
EXPERIMENT_VARIABLES = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV", "DVC_STAGE", "REPRO_DRY")

PREFIX = f"refashion-{HOST}-"
"""Begins the name of a temporary folder, which only this machine may sweep."""


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


def git(*arguments: str, folder: Path, feed: bytes = b"") -> bytes:
    """Return what a git command prints; UserError with git's own reason, if it fails."""
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    done = subprocess.run(command, cwd=folder, input=feed, capture_output=True)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise UserError(f"git {arguments[0]}: {reason}")
    return done.stdout


def experiments(folder: Path) -> dict[str, tuple[str, str]]:
    """DVC's experiments of a repository: name to the commit and the one it started from."""
    form = "--format=%(objectname)/%(refname)"  # refs/exps/<two digits>/<the others>/<name>
    lines = git("for-each-ref", form, "refs/exps", folder=folder).decode().split()
    parts = [line.split("/") for line in lines]
    return {p[5]: (p[0], p[3] + p[4]) for p in parts if len(p) == 6}


def resolve(revision: str, folder: Path) -> str | None:
    """Return the full hash of a commit or of a DVC experiment, by any name that git or DVC has."""
    name, _ = experiments(folder).get(revision, (revision, None))
    with suppress(UserError):
        return git("rev-parse", "--verify", f"{name}^{{commit}}", folder=folder).decode().strip()
    return None


def require(revision: str, folder: Path) -> str:
    """Return what `resolve` does; UserError, if there is no such revision."""
    commit = resolve(revision, folder)
    if commit is None:
        raise UserError(f"{revision}: no such revision; name a commit, branch or tag")
    return commit


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Lend a temporary folder; it goes at the end or, if this process is killed, by `sweep`."""
    lock = None
    while lock is None:  # a sweep may take a folder that is not locked yet
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a temporary folder as long as its descriptor is open; None if it is locked, or gone."""
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.stat()  # or who had it locked has removed it
    except (FileNotFoundError, BlockingIOError):
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def sweep(workspace: Workspace) -> list[Path]:
    """Remove the checkouts of processes that were killed, and what git knows of them.

    A process locks its temporary folder as long as it lives, so what is in use stays; and so does
    what belongs to another machine or user. `UserError` if the workspace is not in git.

    Returns
    -------
    list of Path
        The folders that were removed: temporary ones, and entries in ``.git/worktrees``.
    """
    temporary, removed = Path(tempfile.gettempdir()), []
    for folder in temporary.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's
            if (lock := _lock(folder)) is not None:
                try:
                    shutil.rmtree(folder)
                finally:
                    os.close(lock)
                removed.append(folder)
    for entry in _entries(workspace).glob(f"{PREFIX}*"):
        link = entry / "gitdir"  # missing or empty, if git was killed at once
        with suppress(FileNotFoundError):  # another process sweeps too
            text = link.read_text().strip() if link.exists() else ""
            folder = (entry / (text or temporary / entry.name / "checkout" / ".git")).parents[1]
            if not folder.exists():
                shutil.rmtree(entry)
                removed.append(entry)
    return removed


def _entries(workspace: Workspace) -> Path:
    """Where git keeps what it knows of the checkouts of a repository."""
    shared = git("rev-parse", "--git-common-dir", folder=workspace.root).decode().strip()
    return workspace.root / shared / "worktrees"


@contextmanager
def checkout(state: State, workspace: Workspace) -> Iterator[Workspace]:
    """Lend a checkout in a temporary folder; it goes at the end, on Ctrl-C too.

    It shares the repository and DVC's cache of `workspace`, the user's own, and has the
    configuration of DVC from there. What killed processes have left is swept before. `UserError` if
    the commit is not in this repository, the changes do not apply to it, or a link leaves the
    checkout.
    """
    if resolve(state.commit, workspace.root) is None:
        raise UserError(
            f"commit {state.commit}: is not in this repository; fetch it "
            "(`git fetch --all`), or ask whoever made the run to push it"
        )
    sweep(workspace)
    with temporary_folder() as folder:
        root = folder / folder.name  # after which git names its entry
        add = ("worktree", "add", "--detach", "--quiet", str(root), state.commit)
        try:
            git(*add, folder=workspace.root)
            _apply(state, root)
            _configure_dvc(root, workspace.root)
            yield Workspace(root, commit=state.commit)
        finally:
            shutil.rmtree(root, ignore_errors=True)
            shutil.rmtree(_entries(workspace) / root.name, ignore_errors=True)


def refuse_links(root: Path) -> None:
    """Raise `UserError` if a checkout has a link that leaves it, or what is no file or folder."""
    top = os.path.realpath(root)
    for parent, folders, names in os.walk(root):
        for path in (Path(parent, name) for name in (*folders, *names)):
            if path.is_symlink():
                if not Path(os.path.realpath(path)).is_relative_to(top):
                    target = f"is a link to {path.readlink()}, which is outside the checkout"
                    raise UserError(f"{path.relative_to(root)}: {target}; remove it from the run")
            elif not (path.is_file() or path.is_dir()):
                raise UserError(f"{path.relative_to(root)}: is no file; remove it from the run")


def _apply(state: State, root: Path) -> None:
    """Bring the changes, params and lock of a state into a checkout of its commit."""
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
    refuse_links(root)
    for name, content in (("params.yaml", state.params), ("dvc.lock", state.lock)):
        if content is not None:
            with files.replacing(root / name) as temporary:
                temporary.write_bytes(content)


def _configure_dvc(root: Path, user: Path) -> None:
    """Give a checkout the configuration and cache of the user's own, to read from.

    That of the commit could send the user's passwords to another address.
    """
    from dvc.config import Config
    from dvc.repo import Repo

    for name in ("config", "config.local"):
        own, copy = user / ".dvc" / name, root / ".dvc" / name
        copy.unlink(missing_ok=True)
        if own.exists():
            shutil.copyfile(own, copy)
    with Repo(str(user)) as repo:
        cache = repo.cache.local_cache_dir
    with Config(str(root / ".dvc")).edit("local") as config:
        config["cache"] |= {"dir": cache, "type": "reflink,copy"}  # a stage may write into a link
        config["core"]["no_scm"] = True  # git's own folder is elsewhere
        config["core"]["site_cache_dir"] = str(root / ".dvc" / "tmp" / "site")  # goes with it


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
                dvc(command, *missing, folder=root)


def fetch_results(checkout: Workspace, *data: str) -> None:
    """Bring what the pipeline has made of its data into a checkout, and the data named here."""
    paths = outputs(promised(checkout))
    fetch([p for p in paths if p in data or not p.startswith("data/")], checkout.root)


def environment() -> dict[str, str]:
    """Environment of a process that belongs to no experiment and finds this Python's programs."""
    kept = {k: v for k, v in os.environ.items() if k not in EXPERIMENT_VARIABLES}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": programs}


def rerun(
    checkout: Workspace,
    stages: Iterable[str],
    workspace: Workspace,
    changes: Mapping[str, str] | None = None,
    isolated: bool = False,
) -> None:
    """Run stages and all that they need, nothing out of a cache but the downloaded files.

    Stages are given as DVC addresses them, `workspace` is the user's own, and `changes` are
    environment variables to set; `isolated`: see `refashion.reproduction.isolation`. `UserError` if
    no source has the data, a stage fails or leaves a link out of the checkout, or the system cannot
    isolate it.
    """
    sandbox = isolation.sandbox(checkout.root) if isolated else []
    for file in checkout.root.rglob("dvc.lock"):
        kept = {
            name: stage
            for name, stage in read_lock(file).items()
            if stage.get("outs") and all(out["path"] in DOWNLOADED for out in stage["outs"])
        }
        # DVC runs a stage that the lock does not know, and removes its former outputs first.
        files.write_text(file, yaml.safe_dump({"schema": "2.0", "stages": kept}))
        fetch(outputs(kept), checkout.root)
    targets = list(dict.fromkeys(stages))
    variables = {**environment(), "DVC_ROOT": str(workspace.main)}
    if isolated:  # a download that runs again, as its code has changed, finds its files there
        from refashion.data import sources  # which takes its time

        given = checkout.root / ".dvc" / "tmp" / "data"
        for path in DOWNLOADED:
            with suppress(FileNotFoundError):
                shutil.copytree(checkout.root / path, given, dirs_exist_ok=True)
        variables = {**isolation.environment(), sources.VARIABLE: str(given)}
    done = subprocess.run(
        [*sandbox, *DVC, "repro", "--no-commit", "--no-run-cache", "--", *targets],
        cwd=checkout.root,
        env={**variables, **(changes or {})},
        stdin=subprocess.DEVNULL,
        stdout=2,  # beside the answer
        start_new_session=isolated,  # a terminal takes what its processes type
    )
    if done.returncode < 0 or done.returncode == 130:
        raise KeyboardInterrupt
    refuse_links(checkout.root)
    if checkout.no_source.exists() and isolated:
        raise UserError(
            "--isolated: DVC's cache has not all data, and there is no network; run the stage that "
            "downloads them here first, as with `dvc repro download`"
        )
    if checkout.no_source.exists():
        raise UserError(checkout.no_source.read_text(encoding="utf-8").strip())
    if done.returncode:
        raise UserError(f"{' '.join(targets)}: a stage failed, as told above; mend that first")


def read_lock(file: Path) -> dict[str, dict[str, Any]]:
    """Stages of a ``dvc.lock``, by name; none, if there is no such file.

    `UserError` if it is damaged.
    """
    if not file.exists():
        return {}
    stages = stages_of(file.read_bytes())
    if stages is None:
        raise UserError(f"{file}: is damaged; run `refashion mend`")
    return stages


def stages_of(lock: bytes) -> dict[str, dict[str, Any]] | None:
    """Stages in the content of a ``dvc.lock``, by name; None if it is damaged."""
    try:
        stages = yaml.safe_load(lock)["stages"]
        parts = [part for stage in stages.values() for part in _parts(stage)]
        sound = all(stage["cmd"] for stage in stages.values()) and all(p["path"] for p in parts)
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
        return None
    return stages if sound else None


def _parts(stage: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a ``dvc.lock`` tells of the files of a stage."""
    return [*stage.get("deps", ()), *stage.get("outs", ())]


def outputs(lock: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Digest of every output that a ``dvc.lock`` tells of, by path, in the stages' order."""
    return {out["path"]: out["md5"] for stage in lock.values() for out in stage.get("outs", [])}


def promised(workspace: Workspace) -> dict[str, dict[str, Any]]:
    """Stages with outputs in ``dvc.lock``, by name, of those that the pipeline still has."""
    present = dvc("stage", "list", "--name-only", folder=workspace.root).split()
    lock = read_lock(workspace.root / "dvc.lock")
    return {name: stage for name, stage in lock.items() if name in present and stage.get("outs")}
