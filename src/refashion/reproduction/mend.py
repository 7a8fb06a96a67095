"""What killed processes have left in a checkout: found, and put right."""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import lockfile, pipeline, queue, revisions, worktree
from refashion.reproduction.processes import is_used, users

LOCKS = ("index.lock", "HEAD.lock", "packed-refs.lock", "config.lock")
"""Of git, beside those of single branches and objects."""

NO_GIT = (UserError, FileNotFoundError)
"""What is raised outside a repository of git, before its first commit, and without git."""

RUNS = "refs/exps/exec/EXEC_BASELINE"
"""Reference that is there while `dvc exp run` runs in the workspace; all worktrees share it."""

QUEUED = ".dvc/tmp/repro.dat"
"""File of DVC's own that it stages to queue an experiment."""

CLAIM = rb"/[0-9a-f]{32}\.lock\Z"
"""What a lock of DVC's that is a hard link ends with: the name of the file that it links to."""

MOVED = b"checkout: moving from "
"""What the log of HEAD begins with when it has been detached."""

RESTORED = b"dvc: Restore HEAD"
"""What the log of HEAD tells when it has put HEAD back."""

UNDER_WAY = (
    "rebase-merge",
    "rebase-apply",
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "BISECT_LOG",
)
"""Of git, while the user is at something that takes several commands."""

JUST_NOW = 1.0
"""Seconds that a file may be as it is with no process that has it open: one is about to write."""

ELSEWHERE = 3600.0
"""The same in a cache outside the checkout, where processes of other machines may be at work."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """Something that is wrong in a checkout."""

    what: str
    cure: str
    mend: Callable[[], object] | None = None  # None: the cure is the user's to apply

    @property
    def advice(self) -> str:
        """What is wrong, and what the user can do."""
        return f"{self.what}; {'run `refashion mend`' if self.mend else self.cure}"


def blocking(workspace: Workspace) -> Iterator[Fault]:
    """What killed processes have left that makes commands of DVC fail, however often they run."""
    superfluous = partial(_superfluous, workspace)
    experiments = _experiments(workspace)
    for lock in [*_hard_links(workspace)]:  # to remove one changes the time of the other
        yield superfluous(lock, "of a process that was killed")
    for lock in (experiments.with_name("rwlock"), experiments / "rwlock"):
        if lock.is_file() and not _is_sound(lock.read_bytes()):
            yield superfluous(lock, "is damaged", partial(_remove, lock, workspace))
    for file in filter(_is_left, queue.damaged(experiments)):
        yield superfluous(file, "is damaged")
    for file in _locks_of_git(workspace):
        yield superfluous(file, "of a process that was killed")
    for folder in _half_saved(workspace):
        yield superfluous(folder, "was half saved", partial(_remove_half_saved, folder))
    locks = [workspace.root / "dvc.lock", *workspace.root.glob("stages/*/dvc.lock")]
    conflicts = _conflicts(locks, workspace)
    for name in conflicts:
        yield Fault(what=f"{name}: has merge conflicts", cure=f"resolve them, and `git add {name}`")
    if workspace.params_file.name not in conflicts and (whole := _whole_settings(workspace)):
        what = f"{workspace.params_file.name}: is cut off"
        put_back = partial(_put_back, workspace.params_file, whole)
        yield Fault(what=what, cure="put back as git has it", mend=put_back)
    if names := _staged(workspace):
        what = f"{', '.join(names)}: staged by a `dvc exp run` that was killed"
        yield Fault(what=what, cure="unstaged", mend=partial(_unstage, names, workspace))
    for file in locks:
        name, committed = workspace.relative(file), b""
        is_whole = not file.is_file() or lockfile.stages_of(file.read_bytes()) is not None
        if name in conflicts or is_whole:
            continue
        with suppress(*NO_GIT):  # or not committed
            committed = revisions.git("show", f"HEAD:./{name}", folder=workspace.root)
        cure, mend = "removed; DVC writes it anew", file.unlink
        if lockfile.stages_of(committed) is not None:
            cure, mend = "put back as in HEAD", partial(_put_back, file, committed)
        yield Fault(what=f"{name}: is damaged", cure=cure, mend=mend)


def faults(workspace: Workspace) -> Iterator[Fault]:
    """Whatever a process that was killed has left, and no living one uses."""
    yield from blocking(workspace)
    for file in (*files.left(*workspace.written), *_left_in_cache(workspace)):
        yield _superfluous(workspace, file, "of a process that was killed")
    experiments = _experiments(workspace)
    for task in queue.dead(experiments):
        yield Fault(
            what=f"experiment {task.name}: its process was killed",
            cure="marked as failed; queue it again",
            # DVC then finds out that the process is gone.
            mend=partial(pipeline.dvc, "queue", "kill", task.revision[:7], folder=workspace.root),
        )
    for folder in sorted([*experiments.glob("tmp*/"), *experiments.glob("standalone/tmp*/")]):
        # DVC makes one some time before a process works there.
        if not is_used(folder) and "dvc" not in users(workspace.root):
            remove = partial(shutil.rmtree, folder, ignore_errors=True)
            yield _superfluous(workspace, folder, "of an experiment that was killed", remove)


def _superfluous(
    workspace: Workspace, path: Path, why: str, remove: Callable[[], object] | None = None
) -> Fault:
    """A fault whose cure is to remove a file, or what else `remove` does."""
    what = f"{os.path.relpath(path, workspace.root)}: {why}"
    return Fault(what=what, cure="removed", mend=remove or partial(path.unlink, missing_ok=True))


def mend(workspace: Workspace) -> Iterator[str]:
    """Put right all `faults`, and remove checkouts of processes that were killed.

    Gives a line for each as soon as it is done, and for what the user has to do.
    """
    for fault in faults(workspace):
        if fault.mend:
            fault.mend()
        yield f"{fault.what}: {fault.cure}" if fault.mend else fault.advice
    with suppress(*NO_GIT):
        for folder in worktree.sweep(workspace):
            yield f"{folder}: of a process that was killed: removed"


def _is_sound(rwlock: bytes) -> bool:
    """Whether these are the contents of DVC's file of locks."""
    try:
        content = json.loads(rwlock)
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() <= {"read", "write"}


@contextmanager
def _locked(lock: Path, workspace: Workspace) -> Iterator[None]:
    """Hold a lock of DVC's; `UserError` if a DVC process does."""
    from dvc.lock import LockError, make_lock

    is_link = _configured(workspace, "core").get("hardlink_lock", False)
    try:
        with make_lock(str(lock), tmp_dir=str(lock.parent), hardlink_lock=is_link):
            yield
    except LockError:
        raise UserError(f"{lock}: a DVC command is running; wait for its end") from None


def _hard_links(workspace: Workspace) -> Iterator[Path]:
    """Locks of DVC's that are hard links, and what they link to, once no DVC process is at work.

    DVC makes them where its `core.hardlink_lock` is set, and has them last a year. Their names are
    digests, which tell no process.
    """
    experiments = _experiments(workspace)
    for folder in (experiments.parent, experiments):
        for lock in sorted(filter(Path.is_file, folder.glob("*lock"))):
            with suppress(FileNotFoundError):
                is_old = time.time() - lock.stat().st_ctime > JUST_NOW
                is_link = is_old and re.search(CLAIM, lock.read_bytes())
                if is_link and not is_used(lock) and "dvc" not in users(workspace.root):
                    yield lock


def _remove(rwlock: Path, workspace: Workspace) -> None:
    """Remove DVC's file of locks, unless a DVC process is at it."""
    with _locked(rwlock.with_name("rwlock.lock"), workspace):
        rwlock.unlink(missing_ok=True)


def _configured(workspace: Workspace, section: str) -> dict[str, Any]:
    """A section of DVC's configuration; empty where that is damaged."""
    from dvc.config import Config
    from dvc.exceptions import DvcException

    with suppress(DvcException):
        return dict(Config(str(workspace.root / ".dvc"))[section])
    return {}


def _cache(workspace: Workspace) -> Path:
    """DVC's cache, as its configuration says; where that is damaged, the usual one."""
    usual = workspace.root / ".dvc" / "cache"
    return Path(_configured(workspace, "cache").get("dir", usual))


def _is_own(cache: Path, workspace: Workspace) -> bool:
    """Whether DVC's cache lies in the checkout; another may be shared with other machines."""
    return cache.resolve().is_relative_to(workspace.root.resolve())


def _left_in_cache(workspace: Workspace) -> Iterator[Path]:
    """Temporary files in DVC's cache of processes that were killed."""
    cache = _cache(workspace)
    for file in files.left(cache / "files"):
        with suppress(FileNotFoundError):
            if _is_own(cache, workspace) or time.time() - file.lstat().st_ctime > ELSEWHERE:
                yield file


def _half_saved(workspace: Workspace) -> Iterator[Path]:
    """Folders of DVC's run cache without what a run has left, or with temporary files.

    DVC makes such a folder before what belongs in it, and fails where there is nothing to read.
    """
    cache = _cache(workspace)
    seconds = JUST_NOW if _is_own(cache, workspace) else ELSEWHERE
    for folder in cache.glob("runs/*/*/"):
        is_whole = any(folder.iterdir()) and not any(folder.glob(".*"))
        if not is_whole and _is_left(folder, seconds):
            yield folder


def _remove_half_saved(folder: Path) -> None:
    for file in folder.glob(".*"):  # names of DVC's files while they are written
        file.unlink(missing_ok=True)
    with suppress(OSError):  # something sound is in it
        folder.rmdir()


def _conflicts(locks: Iterable[Path], workspace: Workspace) -> list[str]:
    """Of the settings and the locks of pipelines, those with conflicts of a merge."""
    mark = b"\n<<<<<<< "
    names = {workspace.relative(f) for f in locks if f.is_file() and mark in f.read_bytes()}
    with suppress(*NO_GIT):
        told = revisions.git("ls-files", "--unmerged", "-z", folder=workspace.root)
        unmerged = [line.partition("\t")[2] for line in os.fsdecode(told).split("\0")]
        settings = workspace.params_file.name
        names.update(n for n in unmerged if n == settings or Path(n).name == "dvc.lock")
    return sorted(names)


def _whole_settings(workspace: Workspace) -> bytes:
    """The settings as staged, or else as committed, if the file is no more than their beginning.

    Git, and DVC with it, empties a file before it writes it anew. Empty, if the file is legal.
    """
    file = workspace.params_file
    try:
        workspace.params()
    except UserError:
        if file.exists() and not file.is_file():
            return b""
        content = file.read_bytes() if file.exists() else b""
        for revision in ("", "HEAD"):
            with suppress(*NO_GIT):  # or git does not know it
                name = f"{revision}:./{file.name}"
                whole = revisions.git("show", name, folder=workspace.root)
                if content != whole and whole.startswith(content):
                    return whole
    return b""


def _staged(workspace: Workspace) -> list[str]:
    """Files that a `dvc exp run` which was killed has staged.

    It works on a detached HEAD: it stages the settings and a file of its own to queue itself, and,
    while a reference tells that it runs, what has changed. At its end it puts HEAD back, and the
    index after that. What is staged while the user rebases, merges or bisects is the user's.
    """
    if queue.runs_in_workspace(_experiments(workspace)):
        return []
    with suppress(*NO_GIT):
        git = partial(revisions.git, folder=workspace.root)
        told = git("diff", "--cached", "--relative", "--no-renames", "--name-only", "-z")
        names = os.fsdecode(told).split("\0")[:-1]
        if not names or any(path.exists() for path in _git_paths(workspace, *UNDER_WAY)):
            return []
        log = git("reflog", "--no-show-signature", "-2", "--format=%H %gs").splitlines()
        entries = [line.partition(b" ") for line in log]
        if git("rev-parse", "--symbolic-full-name", "HEAD") == b"HEAD\n":
            is_certain = QUEUED in names or _has_detached(entries)
            is_only = len(git("worktree", "list").splitlines()) == 1
            if (is_certain or is_only) and git("for-each-ref", "--points-at=HEAD", RUNS):
                return names
            if is_certain:
                own = (workspace.params_file.name, QUEUED)
                return [name for name in names if name in own]
        head, index = (p.stat().st_mtime_ns for p in _git_paths(workspace, "HEAD", "index"))
        if index < head and any(what.startswith(RESTORED) for _, _, what in entries[:1]):
            return names
    return []


def _has_detached(entries: Sequence[tuple[bytes, bytes, bytes]]) -> bool:
    """Whether DVC has detached HEAD, by the log's newest entries: where it was, by its full hash.

    Where HEAD was detached before, that leaves no entry. Git itself tells what the user gave it: a
    name, or the hash of another commit.
    """
    if len(entries) < 2:
        return False
    (head, _, what), (before, _, _) = entries
    return head == before and what.startswith(MOVED) and what.endswith(b" to " + head)


def _unstage(names: list[str], workspace: Workspace) -> None:
    """Remove files' changes from git's index alone, unless a DVC process is at work."""
    with _locked(workspace.root / ".dvc" / "tmp" / "lock", workspace):
        revisions.git("reset", "--quiet", "--", *names, folder=workspace.root)


def _locks_of_git(workspace: Workspace) -> Iterator[Path]:
    """Lock files of git that no running process holds.

    While an editor is open for a message, ``git commit`` holds a lock that it has closed.
    """
    with suppress(*NO_GIT):
        refs, objects, *locks = _git_paths(workspace, "refs", "objects", *LOCKS)
        told = revisions.git("rev-parse", "--show-toplevel", folder=workspace.root)
        top = Path(os.fsdecode(told).removesuffix("\n"))
        locks += [*refs.rglob("*.lock"), *objects.glob("*/*.lock")]
        found = [lock for lock in locks if lock.exists()]
        if not all(map(_is_left, found)):
            time.sleep(JUST_NOW)  # a living process is done with it by then, as a rule
        for lock in found:
            if _is_left(lock) and "git" not in users(top):
                yield lock


def _git_paths(workspace: Workspace, *names: str) -> list[Path]:
    """Where files and folders of git's own lie, which may be elsewhere for a worktree."""
    asked = [word for name in names for word in ("--git-path", name)]
    told = revisions.git("rev-parse", *asked, folder=workspace.root)
    return [workspace.root / path for path in os.fsdecode(told).split("\n")[:-1]]


def _put_back(file: Path, content: bytes) -> None:
    with files.replacing(file) as temporary:
        temporary.write_bytes(content)


def _is_left(file: Path, seconds: float = JUST_NOW) -> bool:
    """Whether nobody has a file open, or has just changed it."""
    with suppress(FileNotFoundError):
        return time.time() - file.stat().st_mtime > seconds and not is_used(file)
    return False


def _experiments(workspace: Workspace) -> Path:
    """DVC's folder of the experiments that run or are queued."""
    return workspace.root / ".dvc" / "tmp" / "exps"
