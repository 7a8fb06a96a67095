"""Fetch the official files of the data set: python stages download."""

from refashion.base import params, paths
from refashion.data import sources


def main() -> None:
    """Leave the four files of the data set in ``data/raw``, each as its checksum says."""
    sources.fetch(params.load().data.dataset, paths.RAW)
