"""Validation of every variant on stratified folds of the training images (book, section 4.10)."""

from functools import partial

import numpy as np

from refashion.base.params import Params
from refashion.base.progress import Advance, progress
from refashion.base.workspace import Workspace
from refashion.data import prepared, splits
from refashion.data.prepared import Split
from refashion.studies import classifiers, study
from refashion.studies.study import Headline, Trained
from refashion.training import loop
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
    parts = [prepared.load(workspace.train), prepared.load(workspace.validation)]
    known = Split(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
    folds = splits.folds(known.labels, k, seed)
    write_run = partial(
        study.write_run,
        workspace,
        data=params.data.model_dump(),
        inputs={"known": prepared.digest(known)},
        stage=STAGE,
    )
    accuracies = {}
    with progress(NAME, k * len(params.variants) * params.epochs, "epochs") as advance:
        for variant in params.variants:
            name, settings = f"{NAME}/{variant}", classifiers.settings(params, variant)
            trained = [_train(settings, known, fold, params.device, advance) for fold in folds]
            whole = study.sum_up(trained)
            loop.refuse_divergence(name, whole.trainings)
            shared = {**settings.as_dict(), "folds": k, "folds_seed": seed}
            metrics = {"folds": k, **whole.last_measures}
            write_run(name, whole, params=shared, metrics=metrics)
            for fold, part in enumerate(trained, start=1):
                write_run(f"{name}.fold_{fold}", part, params={**shared, "fold": fold}, parent=name)
            accuracies[variant] = metrics["validation_accuracy"]
    return {"validation_accuracy": accuracies}


def _train(
    settings: Settings, known: Split, fold: np.ndarray, device: str, advance: Advance
) -> Trained:
    """Train on all images but those of one fold, and validate on that fold."""
    others = np.setdiff1d(np.arange(len(known.labels)), fold)
    train, validation = (
        Examples.of_images(known.images[rows], known.labels[rows]) for rows in (others, fold)
    )
    return study.train(
        [Model(settings=settings, train=train, validation=validation)], device, advance
    )
