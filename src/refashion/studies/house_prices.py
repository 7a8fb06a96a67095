"""Prediction of house prices, validated on folds (book, section 4.10)."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.base.params.studies import HouseModelParams
from refashion.base.workspace import Workspace
from refashion.data import houses, splits
from refashion.data.catalogue import HOUSE_FILES
from refashion.data.houses import Table
from refashion.portable import exact, functions
from refashion.studies import study
from refashion.studies.study import Headline, Measures, Trained
from refashion.training import portable
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Model, Row
from refashion.training.settings import Settings

NAME = "house_prices"
TITLE = "House prices"
NOTES = (
    "Prices of houses in Ames, Iowa, from a table with missing values (book, section 4.10). "
    "Each model is trained on all folds but one and validated on that one, in turn.",
    "The error is the root mean squared error of the logarithm of the price. Features are "
    "standardised and encoded by what the training fold alone tells; the book uses the test "
    "houses too.",
)
LOWEST = 1.0  # dollars; what is predicted below counts as this (book)
ERROR = "validation_log_rmse"


def run(workspace: Workspace, params: Params) -> Headline:
    """Validate every model on folds, and let the best one predict the prices of the test houses.

    Each model is a run: its history holds means over the folds of the root mean squared error of
    the logarithm, its metrics those of the last epoch, with their spread. The headline is the
    validation error of the best model. Its run holds the submission too, by a model of its
    settings trained on all houses.
    """
    p = params.studies.house_prices
    known = houses.read_train(workspace.houses / HOUSE_FILES["train"])
    test = houses.read_test(workspace.houses / HOUSE_FILES["test"], known)
    folds = _folds(known, p.folds, params.seed)
    features, test_features = map(torch.from_numpy, houses.features(known, test))
    everything = _examples(features, known)
    validated = {name: _train(params, name, folds) for name in p.models}
    measures = {name: study.last_measures(trained) for name, trained in validated.items()}
    best = min(measures, key=lambda name: measures[name][ERROR])
    (final,) = _train(params, best, [(everything, everything[:0])])
    prices = predict(final.training.weights, test_features, p.models[best])
    if not bool(prices.isfinite().all()):
        raise _beyond_bounds(best, p.models[best], "for the test houses")
    submission = [[house, price] for house, price in zip(test.ids, prices.tolist(), strict=True)]
    inputs = {"train": houses.digest(known)}
    for name, trained in validated.items():
        is_best = name == best
        study.write_run(
            workspace,
            f"{NAME}/{name}",
            trained,
            data={"dataset": p.dataset},
            inputs=inputs | ({"test": houses.digest(test)} if is_best else {}),
            params={
                **trained[0].training.settings.as_dict(),
                "folds": p.folds,
                "log_price": p.models[name].log_price,
            },
            metrics={"folds": p.folds, **measures[name]},
            tables={"submission.csv": ([houses.ID, houses.PRICE], submission)} if is_best else None,
        )
    print(f"submission written with model {best}")
    return {ERROR: {best: measures[best][ERROR]}}


def _folds(known: Table, k: int, seed: int) -> list[list[Examples]]:
    """Training and validation examples of every fold; their targets are prices.

    Folds know different numbers of values: columns of zeros give all the same shape.
    """
    rows = np.arange(len(known.ids))
    folds = splits.folds(np.zeros_like(rows), k, seed)
    tables = [(known.rows(np.setdiff1d(rows, fold)), known.rows(fold)) for fold in folds]
    features = [list(map(torch.from_numpy, houses.features(*pair))) for pair in tables]
    widest = max(train.shape[1] for train, _ in features)
    return [
        [_examples(pad(x, (0, widest - x.shape[1])), table) for x, table in zip(*fold, strict=True)]
        for fold in zip(features, tables, strict=True)
    ]


def _examples(features: Tensor, table: Table) -> Examples:
    return Examples(inputs=features, targets=torch.from_numpy(table.prices)[:, None])


def _train(params: Params, name: str, folds: Sequence[Sequence[Examples]]) -> list[Trained]:
    """Train a model on every fold, on the logarithms of prices if it is to learn these."""
    p = params.studies.house_prices
    model = p.models[name]
    settings = Settings(
        **model.model_dump(exclude={"log_price"}),
        seed=params.seed,
        batch_size=p.batch_size,
        numerics=params.numerics,
        num_inputs=folds[0][0].inputs.shape[1],
        num_outputs=1,
        loss="squared",
    )
    learnt = folds
    if model.log_price:
        learnt = [[replace(e, targets=functions.log(e.targets)) for e in fold] for fold in folds]
    models = [Model(settings=settings, train=train, validation=held) for train, held in learnt]

    def observe(row: Row, weights: Weights) -> Measures:
        errors = {
            measure: log_rmse(predict(weights, examples.inputs, model), examples.targets[:, 0])
            for measure, examples in zip(("train_log_rmse", ERROR), folds[row.model], strict=True)
            if len(examples)
        }
        if not all(map(math.isfinite, errors.values())):
            raise _beyond_bounds(name, model, f"in epoch {row.epoch}")
        return errors

    return study.train(f"{NAME}/{name}", models, params.device, observe)


def _beyond_bounds(name: str, model: HouseModelParams, where: str) -> UserError:
    return UserError(
        f"studies.house_prices.models.{name}: predicts prices beyond all bounds {where}; use a "
        f"learning rate below {model.lr:g}"
    )


def log_rmse(predicted: Tensor, prices: Tensor) -> float:
    """Root mean squared difference of the logarithms of prices, float64 [n]."""
    difference = functions.log(predicted.clamp(min=LOWEST)) - functions.log(prices)
    return math.sqrt(exact.mean(difference * difference))


def predict(weights: Weights, inputs: Tensor, model: HouseModelParams) -> Tensor:
    """Predicted prices: float64 [n]."""
    outputs = portable.outputs(weights, inputs)[:, 0]
    return functions.exp(outputs) if model.log_price else outputs
