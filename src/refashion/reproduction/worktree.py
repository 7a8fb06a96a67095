"""A checkout in a folder of its own, where stages run without touching the user's."""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.machine import HOST
from refashion.base.workspace import Workspace
from refashion.reproduction.revisions import git, resolve
from refashion.tracking.context import LEFT_OUT

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
