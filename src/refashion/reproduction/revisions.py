"""Commits, branches, tags and DVC experiments of a git repository."""

import subprocess
from contextlib import suppress
from pathlib import Path

from refashion.base.errors import UserError


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
