"""Measure one variant on the test set: ``python stages evaluate VARIANT``."""

from dataclasses import astuple

import numpy as np
import torch

from refashion.base import files, params, paths
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.evaluation import metrics, model, predictions
from refashion.training import device, portable


def main(variant: str) -> None:
    """Leave the variant's metrics, its answer to every test image and its calibration."""
    p = params.load()
    weights = model.load(paths.weights(variant), paths.record(variant))
    test = prepared.load(paths.TEST)
    images = torch.tensor(np.asarray(test.images), device=device.resolve(p.device))
    labels = torch.tensor(test.labels, dtype=torch.int64)
    classes = DATASETS[p.data.dataset].classes
    found = metrics.evaluate(portable.outputs(weights, images), labels, classes)
    predictions.write(
        paths.predictions(variant),
        [classes[i] for i in labels.tolist()],
        [classes[i] for i in found.predicted.tolist()],
        found.confidence.tolist(),
    )
    header = ["low", "high", "images", "confidence", "accuracy"]
    files.write_csv(paths.calibration(variant), header, map(astuple, found.calibration))
    files.write_json(paths.metrics(variant), found.metrics)
    print(f"{variant}: test accuracy {found.metrics['accuracy']:.4f}")
