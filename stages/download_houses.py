"""Fetch the tables of house prices: python stages download_houses."""

from refashion.base.workspace import Workspace
from refashion.data import sources


def main() -> None:
    """Leave both tables in ``data/houses``, each as its checksum says."""
    workspace = Workspace.here()
    sources.fetch(workspace.params().studies.house_prices.dataset, workspace.houses, workspace)
