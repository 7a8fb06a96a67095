"""Results of variants that params.yaml no longer has."""

from collections.abc import Collection
from pathlib import Path

from refashion.base import paths

RESULTS = (
    paths.weights,
    paths.history,
    paths.record,
    paths.metrics,
    paths.calibration,
    paths.predictions,
)


def remove(variants: Collection[str]) -> list[Path]:
    """Delete the results of all variants but these, and return the folders they were in.

    DVC hashes ``models/`` and ``reports/evaluation/`` whole: what is left there would pass for a
    result of the present params. Its cache keeps what is deleted here. Files that the pipeline
    did not write stay, and so do their folders.
    """
    folders = {f for parent in (paths.MODELS, paths.EVALUATION) for f in parent.glob("*/")}
    removed = []
    for folder in sorted(f for f in folders if f.name not in variants):
        results = (result(folder.name) for result in RESULTS)
        made_here = [f for f in results if f.parent == folder and f.exists()]
        for file in made_here:
            file.unlink()
        if made_here:
            removed.append(folder)
        if not any(folder.iterdir()):
            folder.rmdir()
    return removed
