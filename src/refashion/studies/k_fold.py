"""Validation of every variant on stratified folds of the training images (book, section 4.10)."""

from functools import partial
from itertools import chain

import numpy as np

from refashion.base.params import Params
from refashion.base.workspace import Workspace
from refashion.data import prepared, splits
from refashion.data.prepared import Split
from refashion.studies import classifiers, study
from refashion.studies.study import Headline, Trained
from refashion.training.engine import Examples
from refashion.training.loop import Model

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
    folds = splits.folds(known.labels, k, seed)
    write_run = partial(
        study.write_run,
        workspace,
        data=params.data.model_dump(),
        inputs={"known": prepared.digest(known)},
        stage=STAGE,
    )
    accuracies = {}
    for variant in params.variants:
        name, settings = f"{NAME}/{variant}", classifiers.settings(params, variant)
        parts: dict[str, list[Trained]] = {}
        for i, fold in enumerate(folds, start=1):
            others = np.setdiff1d(np.arange(len(known.labels)), fold)
            train, validation = (
                Examples.of_images(known.images[rows], known.labels[rows])
                for rows in (others, fold)
            )
            model = Model(settings=settings, train=train, validation=validation)
            part = f"{name}.fold_{i}"
            parts[part] = study.train(part, [model], params.device)
        whole = list(chain.from_iterable(parts.values()))
        metrics = {"folds": k, **study.last_measures(whole)}
        shared = {**settings.as_dict(), "folds": k, "folds_seed": seed}
        write_run(name, whole, params=shared, metrics=metrics)
        for i, (part, trained) in enumerate(parts.items(), start=1):
            write_run(part, trained, params={**shared, "fold": i}, parent=name)
        accuracies[variant] = metrics["validation_accuracy"]
    return {"validation_accuracy": accuracies}
