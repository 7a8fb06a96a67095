"""Draw the README's pictures of the studies from their runs in ``reports/``."""

import sys
from pathlib import Path

from refashion.base.workspace import Workspace
from refashion.pictures.figures import png
from refashion.pictures.studies import PICTURES
from refashion.reporting import explained
from refashion.runs import listing

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Write a picture of each study that has run, and of the explanation."""
    workspace = Workspace.here()
    studies = {name: listing.of_study(workspace, name) for name in PICTURES}
    drawn = {name: PICTURES[name](runs) for name, runs in studies.items() if runs}
    drawn["explained"] = explained.picture(*explained.explain(workspace))
    for name, figure in drawn.items():
        (RESULTS / f"{name}.png").write_bytes(png(figure))


if __name__ == "__main__":
    sys.exit(main())
