"""Validate the settings before any other stage runs: ``python stages check``."""

import sys

from refashion.base import files
from refashion.base.params import cost
from refashion.base.workspace import Workspace


def main() -> None:
    """Refuse what is wrong in params.yaml; DVC has not removed any result yet."""
    workspace = Workspace.here()
    for warning in cost.refuse_impossible(workspace.params()):
        print(warning, file=sys.stderr)
    files.write_text(workspace.checked, "The settings are legal.\n")
