"""The pictures of a run: those that its files are enough for."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.pictures import classifiers
from refashion.pictures.studies import PICTURES
from refashion.runs import listing
from refashion.runs.run import WEIGHTS, Run


def draw(run: Run, workspace: Workspace) -> dict[str, Figure]:
    """Draw a run, and the study that it is part of where that has a picture.

    Parameters
    ----------
    run
        Of the workspace.
    workspace
        With the test images, and the other runs of the study.

    Returns
    -------
    dict
        From name to figure, as `of_files` gives them, and the study's by its own name.
    """
    figures = of_files(run, workspace.test)
    study = run.name.partition("/")[0]
    if study in PICTURES and run.record.parent is None:
        figures[study] = PICTURES[study](listing.of_study(workspace, study))
    return figures


def of_files(run: Run, test: Path) -> dict[str, Figure]:
    """Draw what the files of a run show.

    Parameters
    ----------
    run
        Of any shape.
    test
        Folder of the test images. Nothing is drawn of them if they are missing, or not those
        that the run was measured on.

    Returns
    -------
    dict
        ``learning_curves``, ``calibration``, ``confusion_matrix``, ``confident_mistakes``,
        ``predictions`` and ``first_layer``: those of them that the run has the files for.

    Raises
    ------
    UserError
        If the run's record is missing or damaged.
    """
    dataset = run.record.data["dataset"]
    title = f"{run.name} on {dataset}"
    figures: dict[str, Figure | None] = {}
    if run.has("history.csv") and "train_accuracy" in run.history:
        figures["learning_curves"] = classifiers.learning_curves(title, run.history)
    if run.has("calibration.csv"):
        bins = [{k: float(v) for k, v in row.items()} for row in run.table("calibration.csv")]
        figures["calibration"] = classifiers.calibration(title, bins)
    if run.has("predictions.csv"):
        columns, classes = run.predictions, DATASETS[dataset].classes
        answers = (columns["actual"], columns["predicted"])
        figures["confusion_matrix"] = classifiers.confusion_matrix(title, classes, *answers)
        images = _test_images(test, classes, columns["actual"])
        if images is not None:
            confidence = [float(value) for value in columns["confidence"]]
            figures["confident_mistakes"] = classifiers.confident_mistakes(
                title, images, *answers, confidence
            )
            figures["predictions"] = classifiers.predictions(title, images, *answers)
    if run.has(WEIGHTS):
        from safetensors.numpy import load_file

        weights = load_file(run.file(WEIGHTS))["layers.0.weight"]
        figures["first_layer"] = classifiers.first_layer(title, weights, DATASETS[dataset].classes)
    return {name: figure for name, figure in figures.items() if figure is not None}


def _test_images(test: Path, classes: tuple[str, ...], actual: list[str]) -> np.ndarray | None:
    """The test images, uint8 [n, 784]; None if they are not those of these true classes."""
    try:
        split = prepared.load(test)
    except UserError:
        return None
    return split.images if [classes[i] for i in split.labels.tolist()] == actual else None
