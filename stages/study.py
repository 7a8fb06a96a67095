"""Run one study: ``python stages study STUDY``."""

import importlib

from refashion.base.errors import UserError
from refashion.base.params.studies import StudiesParams
from refashion.base.workspace import Workspace
from refashion.studies import study


def main(name: str) -> None:
    """Leave the study's runs, the numbers to compare experiments by, and tables to be plotted."""
    if name not in StudiesParams.model_fields:
        known = ", ".join(StudiesParams.model_fields)
        raise UserError(f"study {name!r} does not exist; there are {known}")
    workspace = Workspace.here()
    headline = importlib.import_module(f"refashion.studies.{name}").run(
        workspace, workspace.params()
    )
    study.finish(workspace, name, headline)
