"""Draw the README's pictures of the studies from what they have left in ``reports/``."""

import sys
from pathlib import Path

from refashion import studies
from refashion.base import paths
from refashion.reporting import explained
from refashion.tracking import figures, study_figures

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Write a picture of each study that has run, and of the explanation."""
    for study in studies.NAMES:
        if paths.study_record(study).exists():
            (RESULTS / f"{study}.png").write_bytes(study_figures.draw(paths.ROOT, study))
    drawn = explained.picture(explained.explain(None))
    (RESULTS / "explained.png").write_bytes(figures.png(drawn))


if __name__ == "__main__":
    sys.exit(main())
