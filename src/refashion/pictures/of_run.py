"""The pictures of a run that its files suffice for."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.pictures import classifiers, studies
from refashion.pictures.figures import png
from refashion.runs import listing
from refashion.runs.run import WEIGHTS, Run


def draw(run: Run, workspace: Workspace) -> dict[str, bytes]:
    """Draw a run of a workspace: PNG files by name.

    A run of a study has the study's pictures too. A run that another one sums up has none: that one
    shows them all, and MLflow draws the curves of each.
    """
    if run.record.parent is not None:
        return {}
    pictures = {name: png(figure) for name, figure in of_files(run, workspace.test).items()}
    study = run.name.partition("/")[0]
    if study != run.name:
        runs = tuple(listing.of_study(workspace, study))
        results = tuple((r.record.run_key, r.record.result, r.measured) for r in runs)
        pictures |= _of_study(study, runs, results)
    return pictures


@lru_cache(maxsize=len(studies.PICTURES))
def _of_study(
    study: str, runs: tuple[Run, ...], results: tuple[tuple[str, ...], ...]
) -> dict[str, bytes]:
    """The pictures of a study, drawn once for all its runs while their results stay the same."""
    return {name: png(figure) for name, figure in studies.draw(study, runs).items()}


def of_files(run: Run, test: Path) -> dict[str, Figure]:
    """Draw what the files of a run show.

    Test images are drawn only if those in the folder `test` are the ones that the run was measured
    on.

    Returns
    -------
    dict
        ``learning_curves``, ``calibration``, ``confusion_matrix``, ``confident_mistakes``,
        ``predictions`` and ``first_layer``: those that the run has the files for.

    Raises
    ------
    UserError
        If the run's record is missing or damaged.
    """
    dataset = run.record.data["dataset"]
    title = f"{run.name} on {dataset}"
    classes = DATASETS[dataset].classes if dataset in DATASETS else ()
    figures: dict[str, Figure | None] = {}
    if run.has("history.csv") and "train_accuracy" in run.history:
        figures["learning_curves"] = classifiers.learning_curves(title, run.history)
    if run.has("calibration.csv"):
        bins = [{k: float(v) for k, v in row.items()} for row in run.table("calibration.csv")]
        figures["calibration"] = classifiers.calibration(title, bins)
    if run.has("predictions.csv"):
        actual, predicted = run.predictions["actual"], run.predictions["predicted"]
        figures["confusion_matrix"] = classifiers.confusion_matrix(
            title, classes, actual, predicted
        )
        images = _test_images(test, classes, actual)
        if images is not None:
            confidence = [float(value) for value in run.predictions["confidence"]]
            figures["confident_mistakes"] = classifiers.confident_mistakes(
                title, images, actual, predicted, confidence
            )
            figures["predictions"] = classifiers.predictions(title, images, actual, predicted)
    if run.has(WEIGHTS):
        from safetensors.numpy import load_file

        weights = load_file(run.file(WEIGHTS))["layers.0.weight"]
        figures["first_layer"] = classifiers.first_layer(title, weights, classes)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _test_images(test: Path, classes: tuple[str, ...], actual: list[str]) -> np.ndarray | None:
    """The test images, uint8 [n, 784]; None if they have other true classes."""
    try:
        split = prepared.load(test)
    except UserError:
        return None
    return split.images if [classes[i] for i in split.labels.tolist()] == actual else None
