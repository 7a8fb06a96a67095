"""Validate the settings before any other stage runs: ``python stages check``."""

from refashion.base import files
from refashion.base.workspace import Workspace


def main() -> None:
    """Refuse what is wrong in params.yaml; DVC has not removed any result yet."""
    workspace = Workspace.here()
    workspace.params()
    files.write_text(workspace.checked, "The settings are legal.\n")
