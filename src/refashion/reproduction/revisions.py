"""Commits, branches, tags and DVC experiments of a git repository."""

import os
import re
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

from refashion.base.errors import UserError
from refashion.tracking.context import environment


def git(*arguments: str, folder: Path, feed: bytes = b"") -> bytes:
    """Return what a git command prints; UserError with git's own reason, if it fails."""
    command = ["git", "-c", "core.hooksPath=/dev/null", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(), input=feed, capture_output=True)
    if done.returncode:
        reason = " ".join(done.stderr.decode(errors="replace").split())
        raise UserError(f"git {arguments[0]}: {reason}")
    return done.stdout


def experiments(folder: Path) -> dict[str, tuple[str, str]]:
    """DVC's experiments of a repository: name to the commit and the one it started from.

    To a name that several have, the commit that each started from is added: ``a@3f2a9c7``.
    """
    form = "--format=%(objectname)/%(refname)"  # refs/exps/<two digits>/<the others>/<name>
    told = git("for-each-ref", form, "refs/exps", folder=folder)
    lines = os.fsdecode(told).split("\n")  # a name may have other white space
    parts = [line.split("/") for line in lines]
    found = [(p[5], p[0], p[3] + p[4]) for p in parts if len(p) == 6]
    found = [row for row in found if re.fullmatch("[0-9a-f]{40}", row[2])]
    names = Counter(name for name, *_ in found)
    return {
        name if names[name] == 1 else f"{name}@{baseline[:7]}": (commit, baseline)
        for name, commit, baseline in found
    }


def is_reference(name: str, folder: Path) -> bool:
    """Whether git has a branch or a tag of this name, or it is HEAD."""
    with suppress(UserError):
        return bool(git("rev-parse", "--symbolic-full-name", "--verify", name, folder=folder))
    return False


def is_shallow(folder: Path) -> bool:
    """Whether git has left out old commits when it cloned the repository."""
    return git("rev-parse", "--is-shallow-repository", folder=folder) == b"true\n"


def resolve(revision: str, folder: Path) -> str | None:
    """Return the full hash of a commit, by any name that git has, or else of a DVC experiment."""
    with suppress(UserError):
        found = git("rev-parse", "--verify", f"{revision}^{{commit}}", folder=folder)
        return found.decode().strip()
    commit, _ = experiments(folder).get(revision, (None, None))
    return commit


def require(revision: str, folder: Path) -> str:
    """Return what `resolve` does; UserError, if there is no such revision."""
    commit = resolve(revision, folder)
    if commit is None:
        others = ", or fetch old ones (`git fetch --unshallow`)" if is_shallow(folder) else ""
        raise UserError(f"{revision}: no such revision; name a commit, branch or tag{others}")
    return commit
