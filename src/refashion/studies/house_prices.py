"""Prediction of house prices, validated on folds (book, section 4.10)."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.params.studies import HouseModelParams, HousePricesParams
from refashion.data import houses, splits
from refashion.data.catalogue import HOUSE_FILES
from refashion.data.houses import Table
from refashion.portable import exact, functions
from refashion.studies.arm import Arm, Trainer, last, over
from refashion.studies.history import Row
from refashion.training import portable
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Epoch, Training
from refashion.training.settings import Settings

NAME = "house_prices"
LOWEST = 1.0  # dollars; what is predicted below counts as this (book)
ERROR = "validation_log_rmse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """Prices of the test houses, predicted by the best model trained on all others."""

    model: str
    ids: list[str]
    prices: list[float]
    """Dollars."""

    @property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of houses and prices."""
        return sha256(json.dumps([self.ids, self.prices]).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the form that Kaggle takes."""
        rows = zip(self.ids, self.prices, strict=True)
        files.write_csv(path, [houses.ID, houses.PRICE], rows)


def run(
    p: HousePricesParams, folder: Path, seed: int, numerics: str, device: str
) -> tuple[list[Arm], Submission]:
    """Validate every model on the folds of the tables in `folder`; let the best one predict.

    Returns
    -------
    list of Arm
        One a model: its history holds means over the folds of the root mean squared error of the
        logarithm, its metrics those of the last epoch, with their spread.
    Submission
        By the model with the least mean validation error.
    """
    known = houses.read_known(folder / HOUSE_FILES["train"])
    asked = houses.read_asked(folder / HOUSE_FILES["test"], known)
    data = _folds(known, splits.folds(np.zeros(len(known.ids), np.int64), p.folds, seed))
    inputs = {"train": houses.digest(known)}
    arms = []
    with Trainer(NAME, len(p.models) * p.folds + 1) as trainer:
        for name, model in p.models.items():
            trainings, rows = _train(trainer, p, name, data, seed, numerics, device)
            settings = _settings(p, model, data[0], seed, numerics).as_dict()
            arms.append(
                Arm(
                    name=name,
                    params={**settings, "folds": p.folds, "log_price": model.log_price},
                    inputs=inputs,
                    trainings=trainings,
                    history=over(rows),
                    metrics={"folds": p.folds, **last(rows)},
                )
            )
        best = min(arms, key=lambda arm: arm.metrics[ERROR])
        whole, of_asked = map(torch.from_numpy, houses.features(known, asked))
        (training,), _ = _train(trainer, p, best.name, [[(whole, known)]], seed, numerics, device)
    prices = _prices(training.weights, of_asked, p.models[best.name])
    submission = Submission(model=best.name, ids=asked.ids.tolist(), prices=prices.tolist())
    arms[arms.index(best)] = replace(
        best,
        inputs={**inputs, "test": houses.digest(asked)},
        outputs={"submission": submission.digest},
    )
    return arms, submission


Fold = Sequence[tuple[Tensor, Table]]
"""Features and houses to learn from, then those to validate on, if any."""


def _folds(known: Table, folds: Sequence[np.ndarray]) -> list[Fold]:
    """Features and houses of every fold.

    Folds know different numbers of values: columns of zeros give all the same shape.
    """
    everything = np.arange(len(known.ids))
    tables = [(known.rows(np.setdiff1d(everything, own)), known.rows(own)) for own in folds]
    found = [list(map(torch.from_numpy, houses.features(*both))) for both in tables]
    widest = max(inputs.shape[1] for inputs, _ in found)
    return [
        [(pad(x, (0, widest - x.shape[1])), own) for x, own in zip(both, table, strict=True)]
        for both, table in zip(found, tables, strict=True)
    ]


def _train(
    trainer: Trainer,
    p: HousePricesParams,
    name: str,
    folds: Sequence[Fold],
    seed: int,
    numerics: str,
    device: str,
) -> tuple[list[Training], list[list[Row]]]:
    """Train a model on every fold."""
    model = p.models[name]
    settings = [_settings(p, model, fold, seed, numerics) for fold in folds]
    data = []
    for fold in folds:
        train, *held_out = (Examples(inputs=x, targets=_targets(t, model)) for x, t in fold)
        nothing = Examples(inputs=train.inputs[:0], targets=train.targets[:0])
        data.append((train, held_out[0] if held_out else nothing))
    names = ("train_log_rmse", ERROR)

    def observe(number: int, epoch: Epoch, weights: Weights) -> Row:
        found = {
            measure: log_rmse(_prices(weights, inputs, model), torch.from_numpy(table.prices))
            for measure, (inputs, table) in zip(names, folds[number], strict=False)
        }
        if not all(map(math.isfinite, found.values())):
            raise UserError(
                f"studies.house_prices.models.{name}: predicts prices beyond all bounds in epoch "
                f"{epoch.epoch}; use a learning rate below {model.lr:g}"
            )
        return found

    return trainer.train(settings, data, device, observe)


def log_rmse(predicted: Tensor, prices: Tensor) -> float:
    """Root mean squared difference of the logarithms of prices, float64 [n]."""
    difference = functions.log(predicted.clamp(min=LOWEST)) - functions.log(prices)
    return math.sqrt(exact.mean(difference * difference))


def _targets(table: Table, model: HouseModelParams) -> Tensor:
    prices = torch.from_numpy(table.prices)[:, None]
    return functions.log(prices) if model.log_price else prices


def _prices(weights: Weights, inputs: Tensor, model: HouseModelParams) -> Tensor:
    """Predicted prices: float64 [n]."""
    found = portable.outputs(weights, inputs)[:, 0]
    return functions.exp(found) if model.log_price else found


def _settings(
    p: HousePricesParams, model: HouseModelParams, fold: Fold, seed: int, numerics: str
) -> Settings:
    return Settings(
        hidden=model.hidden,
        dropout=(0.0,) * len(model.hidden),
        lr=model.lr,
        seed=seed,
        epochs=model.epochs,
        batch_size=p.batch_size,
        weight_decay=model.weight_decay,
        momentum=0.0,
        numerics=numerics,
        num_inputs=fold[0][0].shape[1],
        num_outputs=1,
        loss="squared",
        optimizer=model.optimizer,
    )
