"""Whether a commit's pipeline still gives what its ``dvc.lock`` promises."""

from dataclasses import dataclass

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import worktree
from refashion.reproduction.worktree import State


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """One output of the pipeline."""

    path: str

    promised: str | None
    """Its digest in the commit's ``dvc.lock``; None: it is not in there."""

    actual: str | None
    """Its digest now; None: it was not made."""

    @property
    def identical(self) -> bool:
        """Whether it came out as promised."""
        return self.promised == self.actual

    def __str__(self) -> str:
        """One line for people."""
        digests = f"different: promised {self.promised}, actual {self.actual}"
        return f"{self.path}: {'identical' if self.identical else digests}"


def verify(workspace: Workspace, commit: str) -> list[Output]:
    """Run every stage with outputs of a commit's ``dvc.lock`` again, in a checkout of its own.

    Stages that the lock still knows, but the commit's pipeline no longer has, are left out.

    Raises
    ------
    UserError
        If the commit has no ``dvc.lock``, no source has the data, or a stage fails.
    """
    with worktree.checkout(State(commit=commit), workspace) as checkout:
        file = checkout.root / "dvc.lock"
        present = worktree.dvc("stage", "list", "--name-only", folder=checkout.root).split()
        lock = {name: stage for name, stage in worktree.read_lock(file).items() if name in present}
        promised = worktree.outputs(lock)
        if not promised:
            raise UserError(
                f"commit {commit[:12]}: has no dvc.lock with outputs, so it promises nothing; run "
                "`dvc repro` and commit what it changes"
            )
        targets = [name for name, stage in lock.items() if stage.get("outs")]
        worktree.rerun(checkout, targets, workspace)
        actual = worktree.outputs(worktree.read_lock(file))
    return [
        Output(path=path, promised=promised.get(path), actual=actual.get(path))
        for path in dict.fromkeys([*promised, *actual])
    ]
