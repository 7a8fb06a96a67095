"""Where a result comes from: commit, uncommitted changes, DVC experiment, packages."""

import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from refashion.base.errors import UserError

LARGEST_UNTRACKED = 2**20
"""Bytes: a larger file that git does not know is named in the diff, not copied into it."""

LEFT_OUT = b"# not included, over 1 MiB: "
"""Begins a line of the diff that names such a file."""

INPUTS = ("--", ":/", ":(exclude)models", ":(exclude)reports", ":(exclude,glob)**/dvc.lock")
"""Arguments of git, in the project's folder, that leave out what the pipeline writes there."""

FORM = (
    *("--binary", "--no-color", "--no-ext-diff", "--no-textconv", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--submodule=short"),
)
"""Options of ``git diff`` for a diff that applies anywhere, whatever the user's settings."""


OF_GIT = {
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE"),
    *("GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_QUARANTINE_PATH", "GIT_DIFF_OPTS"),
    *(f"GIT_{how}_PATHSPECS" for how in ("LITERAL", "GLOB", "NOGLOB", "ICASE")),
}
"""Variables that git sets for its hooks, or by which users alter what it answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The state of a checkout when its results were published."""

    commit: str | None  # full hash of HEAD, in an experiment its baseline; None outside git
    diff: bytes  # for `git apply`: the commit becomes the checkout, but for the pipeline's outputs
    experiment: str | None  # name of the DVC experiment
    baseline: str | None  # commit that it started from
    environment: str  # Python, system and installed packages, as a file of requirements

    @property
    def dirty(self) -> bool:
        """Whether the checkout held more than its commit."""
        return bool(self.diff)


def environment() -> dict[str, str]:
    """Environment variables of this process, for a command that asks git about its own folder."""
    return {name: value for name, value in os.environ.items() if name not in OF_GIT}


def committed(file: Path, commit: str) -> bytes:
    """Content of a file in a commit; empty if the commit does not have it."""
    name = f"{commit}:./{file.name}\n".encode()
    printed = _git(file.parent, "cat-file", "--batch", names=name)  # a line about it comes first
    return printed.partition(b"\n")[2][:-1]


def unchanged(file: Path, commit: str) -> bool:
    """Whether a file is what the commit has."""
    return committed(file, commit) == file.read_bytes()


def gather(root: Path) -> Context:
    """Read the context of a checkout, in git or not, from git, DVC's variables and Python.

    Raises
    ------
    UserError
        If git refuses to read the repository.
    """
    top = _git(root, "rev-parse", "--show-toplevel").decode().rstrip("\n")
    commit = top and _git(root, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
    return Context(
        commit=commit or None,
        diff=_uncommitted(root) if commit else b"",
        experiment=os.environ.get("DVC_EXP_NAME"),
        baseline=os.environ.get("DVC_EXP_BASELINE_REV"),
        environment=_environment(),
    )


def _git(folder: Path, *arguments: str, names: bytes = b"", **variables: str) -> bytes:
    """Return what a git command prints; nothing if git, a repository or HEAD is missing."""
    own = {**environment(), "LC_ALL": "C", **variables}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, env=own, input=names, capture_output=True
        )
    except FileNotFoundError:
        return b""
    complaint = done.stderr.decode(errors="replace").strip()
    if done.returncode and complaint and "not a git repository" not in complaint:
        raise UserError(f"git {arguments[0]}: {' '.join(complaint.split())}")
    return b"" if done.returncode else done.stdout


def _uncommitted(root: Path) -> bytes:
    """Diff of a checkout against HEAD, with the files that git does not know yet."""
    listing = _git(root, "ls-files", "--others", "--exclude-standard", "-z", *INPUTS)
    sizes = {}
    for name in listing.split(b"\0"):
        file = root / os.fsdecode(name)
        if file.is_symlink() or file.is_file():
            sizes[name] = file.lstat().st_size
    large = [name for name, size in sizes.items() if size > LARGEST_UNTRACKED]
    with tempfile.TemporaryDirectory() as folder:
        # New files are announced in a copy of the index: the user's own stays as it is.
        index = Path(folder) / "index"
        original = root / os.fsdecode(_git(root, "rev-parse", "--git-path", "index").rstrip(b"\n"))
        if original.exists():
            shutil.copy2(original, index)  # its time: git reads files that are no older
        announce = ("add", "--intent-to-add", "--pathspec-from-file=-", "--pathspec-file-nul")
        git = partial(_git, root, GIT_INDEX_FILE=str(index))
        if small := b"\0".join(sizes.keys() - set(large)):
            git("--literal-pathspecs", *announce, names=small)
        listed = git("ls-files", "-v", "-z", *INPUTS).split(b"\0")
        hidden = b"\0".join(line[2:] for line in listed if _is_hidden(root, line))
        for flag in ("--no-assume-unchanged", "--no-skip-worktree") if hidden else ():
            git("update-index", flag, "-z", "--stdin", names=hidden)
        diff = git("diff", "HEAD", *FORM, *INPUTS)
    return b"".join(LEFT_OUT + name + b"\n" for name in sorted(large)) + diff


def _is_hidden(root: Path, listed: bytes) -> bool:
    """Whether git has been told not to look at a file, by its line of ``git ls-files -v``.

    Files that a sparse checkout leaves out are marked in the same way.
    """
    tag, file = listed[:1], root / os.fsdecode(listed[2:])
    return os.path.lexists(file) if tag in (b"S", b"s") else tag.islower()


def _environment() -> str:
    """List Python, the system and every installed package with its version."""
    packages = {f"{d.name}=={d.version}" for d in metadata.distributions()}
    system = f"# Python {platform.python_version()} on {platform.platform()}"
    return "\n".join([system, *sorted(packages, key=str.lower), ""])
