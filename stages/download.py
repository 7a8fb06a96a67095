"""Fetch the official files of the data set: python stages download."""

from refashion.base.workspace import Workspace
from refashion.data import sources


def main() -> None:
    """Leave the four files of the data set in ``data/raw``, each as its checksum says."""
    workspace = Workspace.here()
    sources.fetch(workspace.params().data.dataset, workspace.raw, workspace)
