"""Validation of every variant on stratified folds of the training images (book, section 4.10)."""

from functools import partial
from typing import Any

import numpy as np
import torch

from refashion.base.params import Params
from refashion.base.workspace import Workspace
from refashion.data import prepared, splits
from refashion.data.prepared import Split
from refashion.studies import classifiers, study
from refashion.studies.study import Headline
from refashion.training.engine import Examples
from refashion.training.loop import Model
from refashion.training.settings import Settings

NAME = "k_fold"
STAGE = f"stages/{NAME}/dvc.yaml:{NAME}"
TITLE = "k-fold validation"
NOTES = (
    "Every variant, trained on all folds of the training and validation images but one and "
    "validated on that one, in turn (book, section 4.10). Folds have the same share of every "
    "class.",
)


def run(workspace: Workspace, params: Params) -> Headline:
    """Train every variant once for each fold, and give its mean validation accuracy.

    Each training is a run, and each variant has one more that sums its folds up: means of their
    histories, and their metrics with their spread.
    """
    k, seed = params.studies.k_fold.folds, params.data.seed
    both = prepared.load(workspace.train), prepared.load(workspace.validation)
    known = Split(
        images=np.concatenate([split.images for split in both]),
        labels=np.concatenate([split.labels for split in both]),
    )
    examples = Examples.of_images(known.images, known.labels)
    folds = splits.folds(known.labels, k, seed)
    inputs = {"known": prepared.digest(known)}
    write_run = partial(
        study.write_run,
        workspace,
        data=params.data.model_dump(),
        inputs=inputs,
        stage=STAGE,
    )
    accuracies = {}
    for variant in params.variants:
        name, settings = f"{NAME}/{variant}", classifiers.settings(params, variant)
        models = [_model(settings, examples, fold) for fold in folds]
        folding: dict[str, Any] = {"folds": k, "folds_seed": seed}
        with study.checkpoint(
            workspace, name, settings, params.device, inputs=inputs, **folding
        ) as checkpoint:
            trained = study.train(name, models, params.device, checkpoint=checkpoint)
            metrics = {"folds": k, **study.last_measures(trained)}
            shared = {**settings.as_dict(), **folding}
            write_run(name, trained, params=shared, metrics=metrics)
            for i, part in enumerate(trained, start=1):
                write_run(f"{name}.fold_{i}", [part], params={**shared, "fold": i}, parent=name)
        accuracies[variant] = metrics["validation_accuracy"]
    return {"validation_accuracy": accuracies}


def _model(settings: Settings, known: Examples, fold: np.ndarray) -> Model:
    """A model that learns from all images but those of one fold, and is validated on that fold."""
    others = np.setdiff1d(np.arange(len(known)), fold)
    train, validation = (known.select(torch.from_numpy(rows)) for rows in (others, fold))
    return Model(settings=settings, train=train, validation=validation)
