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
from typing import TYPE_CHECKING

import yaml

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.machine import HOST
from refashion.base.workspace import Workspace
from refashion.reproduction.revisions import git, is_shallow, resolve
from refashion.tracking.context import LEFT_OUT

if TYPE_CHECKING:
    from configobj import ConfigObj

CONFIGURATION = ("config", "config.local")
"""DVC's files of settings in a checkout; what the last one says holds."""

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
        how = "--unshallow" if is_shallow(workspace.root) else "--all"
        raise UserError(
            f"commit {state.commit}: is not in this repository; fetch it "
            f"(`git fetch {how}`), or ask whoever made the run to push it"
        )
    sweep(workspace)
    with temporary_folder() as folder:
        root = folder / folder.name  # after which git names its entry
        as_it_is = ("core.autocrlf=false", "core.eol=lf", "core.sparseCheckout=false")
        options = [word for key_and_value in as_it_is for word in ("-c", key_and_value)]
        add = ("worktree", "add", "--detach", "--quiet", str(root), state.commit)
        prefix = git("rev-parse", "--show-prefix", folder=workspace.root)
        try:
            git(*options, *add, folder=workspace.root)
            project = _apply(state, root, Path(os.fsdecode(prefix.rstrip(b"\n"))))
            _refuse_imports(project)
            _configure_dvc(project, workspace.root)
            yield Workspace(project, commit=state.commit)
        finally:
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


def _refuse_imports(root: Path) -> None:
    """Raise `UserError` for a file by which DVC would fetch what is in none of its remotes."""
    for file in filter(Path.is_file, root.rglob("*.dvc")):
        try:
            content = yaml.safe_load(file.read_bytes())
        except (yaml.YAMLError, ValueError):  # of which DVC might read more
            content = None
        if not isinstance(content, dict) or "deps" in content:
            name = file.relative_to(root)
            raise UserError(f"{name}: imports what this repository does not hold; remove it")


def _apply(state: State, root: Path, place: Path) -> Path:
    """Bring the changes, params and lock of a state into a checkout of its commit.

    Returns the project in it: at the place that the user's own has in the repository or, where the
    user's is a copy that git ignores, as the demo's, above that.
    """
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
    folders = [root / folder for folder in (place, *place.parents)]
    project = next((f for f in folders if (f / "dvc.yaml").is_file()), folders[0])
    for name, content in (("params.yaml", state.params), ("dvc.lock", state.lock)):
        if content is not None:
            with files.replacing(project / name) as temporary:
                temporary.write_bytes(content)
    return project


def _configure_dvc(root: Path, user: Path) -> None:
    """Give a checkout the configuration and cache of the user's own, to read from.

    That of the commit could send the user's passwords to another address.
    """
    from configobj import ConfigObj
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(user)) as repo:
            cache = repo.cache.local_cache_dir
    except DvcException as error:
        raise UserError(f"{user}: {' '.join(str(error).split())}; mend DVC's settings") from None
    for name in CONFIGURATION:
        config = ConfigObj(str(user / ".dvc" / name), encoding="utf-8", list_values=False)
        for section in config.sections:
            url = config[section].get("url", "").strip("\"'")
            if url and "://" not in url and not Path(url).is_absolute():
                config[section]["url"] = f'"{os.path.normpath(user / ".dvc" / url)}"'
        _write(config, root, name, cache)


def forget_remotes(root: Path) -> None:
    """Leave nothing of the user's in DVC's configuration of a checkout, no secret either."""
    from configobj import ConfigObj

    for name in CONFIGURATION:
        _write(ConfigObj(encoding="utf-8", list_values=False), root, name)


def _write(config: "ConfigObj", root: Path, name: str, cache: str = "") -> None:
    """Write a file of DVC's configuration of a checkout; DVC itself writes ASCII alone."""
    if name == CONFIGURATION[-1]:
        own = {
            "type": '"reflink,copy"',  # a stage may write into a link
            **({"dir": f'"{cache}"'} if cache else {}),
        }
        config.setdefault("cache", {}).update(own)
        site = root / ".dvc" / "tmp" / "site"  # goes with it; and git's own folder is elsewhere
        config.setdefault("core", {}).update({"no_scm": "true", "site_cache_dir": f'"{site}"'})
    file = root / ".dvc" / name
    file.parent.mkdir(exist_ok=True)
    config.filename = str(file)
    config.write()
