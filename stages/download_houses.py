"""Fetch the tables of house prices: python stages download_houses."""

from refashion.base import params, paths
from refashion.base.params.studies import HousePricesParams
from refashion.data import sources


def main() -> None:
    """Leave both tables in ``data/houses``, each as its checksum says."""
    sources.fetch_houses(params.load().study(HousePricesParams).dataset, paths.HOUSES)
