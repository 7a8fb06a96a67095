"""Draw the README's pictures of the studies from their runs in ``reports/``."""

import sys
from pathlib import Path

from refashion.base.workspace import Workspace
from refashion.pictures import figures
from refashion.pictures.studies import PICTURES
from refashion.reporting import explained
from refashion.runs import listing

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Write a picture of each study that has run, and of the explanation."""
    workspace = Workspace.here()
    studies = {name: listing.of_study(workspace, name) for name in PICTURES}
    drawn = {name: PICTURES[name](runs) for name, runs in studies.items() if runs}
    explanation = explained.picture(explained.explain(workspace))
    figures.save({**drawn, "explained": explanation}, RESULTS)


if __name__ == "__main__":
    sys.exit(main())
