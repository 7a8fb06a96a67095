"""Whether a commit's pipeline still gives what its ``dvc.lock`` promises."""

from typing import Any

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import lockfile, pipeline, worktree
from refashion.reproduction.worktree import State


def verify(workspace: Workspace, commit: str) -> list[dict[str, Any]]:
    """Run every stage with outputs of a commit's ``dvc.lock`` again, in a checkout of its own.

    Stages that the lock still knows, but the commit's pipeline no longer has, are left out.

    Returns
    -------
    list of dict
        Of every output ``path``; ``promised``: its digest in the lock, and ``actual``: that of now,
        None where there is none; ``identical``.

    Raises
    ------
    UserError
        If the commit has no ``dvc.lock``, no source has the data, or a stage fails.
    """
    with worktree.checkout(State(commit=commit), workspace) as checkout:
        stages = pipeline.promised(checkout)
        if not stages:
            raise UserError(
                f"commit {commit[:12]}: has no dvc.lock with outputs, so it promises nothing; run "
                "`dvc repro` and commit what it changes"
            )
        pipeline.rerun(checkout, stages, workspace)
        promised = lockfile.outputs(stages)
        actual = lockfile.outputs(pipeline.promised(checkout))
    rows = [(path, promised.get(path), actual.get(path)) for path in {**promised, **actual}]
    return [{"path": p, "promised": x, "actual": y, "identical": x == y} for p, x, y in rows]
