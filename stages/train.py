"""Train one variant: ``python stages train VARIANT``."""

from refashion.base.workspace import Workspace
from refashion.studies import classifiers


def main(variant: str) -> None:
    """Leave the variant's weights, history and record, and its timings in ``logs/``."""
    workspace = Workspace.here()
    classifiers.run(workspace, workspace.params(), variant)
