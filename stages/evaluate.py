"""Measure one variant on the test set: ``python stages evaluate VARIANT``."""

import shutil

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.evaluation import metrics, model
from refashion.runs import listing
from refashion.runs.run import PREDICTIONS
from refashion.training import device, portable
from refashion.training.engine import Examples


def main(variant: str) -> None:
    """Leave the variant's metrics, scores by class, predictions and calibration."""
    workspace = Workspace.here()
    run = listing.variant(workspace, variant)
    weights = model.load(run)
    test = prepared.load(workspace.test)
    images = Examples.of_images(test.images, test.labels)
    labels, pixels = images.targets, images.inputs.to(device.resolve(workspace.params().device))
    classes = DATASETS[run.record.data["dataset"]].classes
    evaluation = metrics.evaluate(portable.outputs(weights, pixels), labels, classes)
    folder = workspace.evaluation / variant
    columns = (labels.tolist(), evaluation.predicted.tolist(), evaluation.confidence.tolist())
    rows = [
        [i, classes[actual], classes[predicted], confidence]
        for i, (actual, predicted, confidence) in enumerate(zip(*columns, strict=True))
    ]
    files.write_csv(folder / "predictions.csv", PREDICTIONS, rows)
    files.write_csv(folder / "calibration.csv", metrics.Bin._fields, evaluation.calibration)
    header = ["class", *metrics.ClassScores._fields[1:]]
    files.write_csv(folder / "per_class.csv", header, evaluation.per_class)
    files.write_json(folder / "metrics.json", evaluation.metrics)
    # So that `compare` reads this folder alone, which DVC keeps whole.
    for name in ("record.json", "history.csv"):
        with files.replacing(folder / name) as copy:
            shutil.copyfile(run.file(name), copy)
    print(f"{variant}: test accuracy {evaluation.metrics['test_accuracy']:.4f}")
