"""Split the images into training, validation and test sets: python stages preprocess."""

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.data import catalogue, prepared, splits


def main() -> None:
    """Leave the three splits in ``data/prepared`` and their summary in ``reports``."""
    workspace = Workspace.here()
    p = workspace.params().data
    split = splits.split(workspace.raw, limit=p.limit, validation=p.validation, seed=p.seed)
    summary = prepared.summary(split, catalogue.DATASETS[p.dataset].classes)
    for name, part in split.items():
        prepared.save(workspace.train.with_name(name), part.images, part.labels)
    files.write_json(workspace.data_summary, summary)
