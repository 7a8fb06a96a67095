"""Does a commit keep its promise? Every stage again, every output against ``dvc.lock``."""

from dataclasses import dataclass

from refashion import studies
from refashion.reproduction import worktree
from refashion.reproduction.worktree import State

LAST = ("compare", *studies.DEFAULT)
"""The stages that together need all others but the publication."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One output of the pipeline."""

    path: str
    promised: str | None
    """Its digest in the commit's ``dvc.lock``; None: not there."""
    found: str | None
    """Its digest now; None: it was not made."""

    @property
    def identical(self) -> bool:
        """Whether it came out as promised."""
        return self.promised == self.found


def verify(commit: str) -> list[Output]:
    """Run the whole pipeline of a commit again, in a checkout of its own.

    Raises
    ------
    UserError
        If the commit has no ``dvc.lock``, no source has the data, or a stage fails.
    """
    with worktree.checkout(State(commit=commit)) as root:
        lock = root / "dvc.lock"
        promised = worktree.outputs(worktree.read_lock(lock.read_bytes() if lock.exists() else b""))
        worktree.rerun(root, LAST)
        found = worktree.outputs(worktree.read_lock(lock.read_bytes()))
    return [
        Output(path=path, promised=promised.get(path), found=found.get(path))
        for path in dict.fromkeys([*promised, *found])
    ]
