"""Fetch the tables of house prices: python stages download_houses."""

from refashion import params, paths
from refashion.data import sources
from refashion.params.studies import HousePricesParams


def main() -> None:
    """Leave both tables in ``data/houses``, each as its checksum says."""
    sources.fetch_houses(params.load().study(HousePricesParams).dataset, paths.HOUSES)
