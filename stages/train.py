"""Train one variant: ``[python | torchrun OPTIONS] stages train VARIANT``."""

import sys

from refashion.base.workspace import Workspace
from refashion.studies import classifiers
from refashion.training import workers


def main(variant: str) -> None:
    """Leave the variant's weights, history and record, and its timings in ``logs/``."""
    if (number := workers.to_launch()) > 1:
        if code := workers.launch(number, sys.argv):
            sys.exit(code)
        return
    workspace = Workspace.here()
    params = workspace.params()
    with workers.joined(params.device) as group:
        classifiers.run(workspace, params, variant, group)
