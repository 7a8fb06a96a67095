"""Set all variants side by side: ``python stages compare``."""

from rich.console import Console

from refashion.base import files, params, paths
from refashion.evaluation import comparison, leftovers, predictions


def main() -> None:
    """Leave intervals and tests of significance, and no results of variants that are gone."""
    variants = params.load().variants
    for folder in leftovers.remove(variants):
        print(f"removed {folder.relative_to(paths.ROOT)}: params.yaml no longer has this variant")
    result = comparison.compare({v: predictions.read(paths.predictions(v)) for v in variants})
    files.write_json(paths.COMPARISON, result)
    header = ["variant", "accuracy", "low", "high"]
    files.write_csv(paths.ACCURACIES, header, comparison.accuracies(result))
    Console().print(*comparison.tables(result))
