"""Split the images into training, validation and test sets: python stages preprocess."""

from refashion.base import files, params, paths
from refashion.data import catalogue, prepared, splits


def main() -> None:
    """Leave the three splits in ``data/prepared`` and their summary in ``reports``."""
    p = params.load().data
    found = splits.split(paths.RAW, limit=p.limit, validation=p.validation, seed=p.seed)
    summary = prepared.summary(found, catalogue.DATASETS[p.dataset].classes)
    for name, split in found.items():
        prepared.save(paths.PREPARED / name, split.images, split.labels)
    files.write_json(paths.DATA_SUMMARY, summary)
