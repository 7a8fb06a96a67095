"""Validation of every variant on stratified folds of the training images (book, section 4.10)."""

from collections.abc import Mapping

import numpy as np

from refashion.data import prepared, splits
from refashion.data.prepared import Split
from refashion.studies.arm import Arm, Trainer, last, over
from refashion.studies.history import Row
from refashion.training.initial import Weights
from refashion.training.loop import Epoch
from refashion.training.settings import Settings

NAME = "k_fold"
MEASURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weight_norm")


def run(
    k: int, variants: Mapping[str, Settings], parts: list[Split], seed: int, device: str
) -> list[Arm]:
    """Train every variant `k` times, each time validated on another fold of all `parts`.

    Parameters
    ----------
    k
        Number of folds.
    variants
        Settings by name.
    parts
        Training and validation images, which are dealt out anew.
    seed
        Of the folds.
    device
        Where to train.

    Returns
    -------
    list of Arm
        One a variant, with the means and spreads of its folds, each followed by one a fold.
    """
    known = Split(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
    folds = splits.folds(known.labels, k, seed)
    inputs = {"known": prepared.digest(known)}
    arms = []
    with Trainer(NAME, k * len(variants)) as trainer:
        for name, settings in variants.items():
            trainings, rows = [], []
            for held_out in folds:
                pair = _without(known, held_out), _only(known, held_out)
                (training,), (own,) = trainer.train([settings], [pair], device, observe)
                trainings.append(training)
                rows.append(own)
            params = {**settings.as_dict(), "folds": k, "folds_seed": seed}
            arms.append(
                Arm(
                    name=name,
                    params=params,
                    inputs=inputs,
                    trainings=trainings,
                    history=over(rows),
                    metrics={"folds": k, **last(rows)},
                )
            )
            arms += [
                Arm(
                    name=f"{name}.fold_{fold}",
                    params={**params, "fold": fold},
                    inputs=inputs,
                    trainings=[training],
                    history=own,
                    metrics=own[-1],
                    parent=name,
                )
                for fold, (training, own) in enumerate(zip(trainings, rows, strict=True), start=1)
            ]
    return arms


def observe(model: int, epoch: Epoch, weights: Weights) -> Row:
    """What the history of a variant holds."""
    return {name: getattr(epoch, name) for name in MEASURES}


def _only(known: Split, chosen: np.ndarray) -> Split:
    return Split(images=known.images[chosen], labels=known.labels[chosen])


def _without(known: Split, held_out: np.ndarray) -> Split:
    return _only(known, np.setdiff1d(np.arange(len(known.labels)), held_out))
