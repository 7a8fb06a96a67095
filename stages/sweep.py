"""Run one sweep: ``python stages sweep SWEEP``."""

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.studies import executors, study, sweep


def main(name: str) -> None:
    """Leave the runs of all trials and their table, and the accuracies of the best."""
    workspace = Workspace.here()
    params = workspace.params()
    if name not in params.sweeps:
        known = ", ".join(params.sweeps) or "none"
        raise UserError(f"sweep {name!r} is not in params.yaml; there are {known}")
    with executors.chosen() as execute:
        study.finish(workspace, name, sweep.run(workspace, params, name, execute))
