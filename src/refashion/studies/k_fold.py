"""Validation of every variant on stratified folds of the training images (book, section 4.10)."""

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
    """Train every variant once for each fold, validated on that fold.

    Each training is a run, and each variant has one more that sums its folds up: means of their
    histories, and their metrics with their spread.

    Returns
    -------
    Headline
        Mean validation accuracy of every variant.
    """
    k, seed = params.studies.k_fold.folds, params.data.seed
    parts = [prepared.load(workspace.train), prepared.load(workspace.validation)]
    known = Split(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
    folds = splits.folds(known.labels, k, seed)
    data, inputs = params.data.model_dump(), {"known": prepared.digest(known)}
    accuracies = {}
    with progress(NAME, k * len(params.variants) * params.epochs, "epochs") as advance:
        for name in params.variants:
            settings = classifiers.settings(params, name)
            trained = [_train(settings, known, fold, params.device, advance) for fold in folds]
            whole = study.together(trained)
            loop.refuse_divergence(f"{NAME}/{name}", whole.trainings)
            shared = {**settings.as_dict(), "folds": k, "folds_seed": seed}
            metrics = {"folds": k, **whole.last_measures}
            study.write_run(
                workspace,
                NAME,
                name,
                whole,
                data=data,
                inputs=inputs,
                params=shared,
                metrics=metrics,
                stage=STAGE,
            )
            for fold, own in enumerate(trained, start=1):
                study.write_run(
                    workspace,
                    NAME,
                    f"{name}.fold_{fold}",
                    own,
                    data=data,
                    inputs=inputs,
                    params={**shared, "fold": fold},
                    parent=name,
                    stage=STAGE,
                )
            accuracies[name] = metrics["validation_accuracy"]
    return {"validation_accuracy": accuracies}


def _train(
    settings: Settings, known: Split, fold: np.ndarray, device: str, advance: Advance
) -> Trained:
    """Train on all images but those of one fold, and validate on these."""
    others = np.setdiff1d(np.arange(len(known.labels)), fold)
    model = Model(
        settings=settings, train=_examples(known, others), validation=_examples(known, fold)
    )
    return study.train([model], device, advance)


def _examples(known: Split, chosen: np.ndarray) -> Examples:
    return Examples.of_images(known.images[chosen], known.labels[chosen])
