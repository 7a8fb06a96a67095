"""The epoch loop: from settings and examples to rows of a history and weights."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from refashion.base.errors import UserError
from refashion.training import device as devices
from refashion.training import digest, initial, norms
from refashion.training.engine import Engine, Examples, Fit
from refashion.training.initial import Weights
from refashion.training.native import NativeEngine
from refashion.training.portable import CONTRACT, PortableEngine
from refashion.training.settings import Settings
from refashion.training.stack import Stack, stack_examples, stackable

ENGINES: dict[str, type[Engine]] = {"native": NativeEngine, "portable": PortableEngine}
NOTHING = Fit(loss=math.nan, accuracy=math.nan)
"""Of a validation set that is empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model to be trained."""

    settings: Settings
    train: Examples
    """To learn from."""
    validation: Examples
    """To watch; it may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is known of a model after an epoch; without the model's number, a row of the history."""

    model: int
    """Its number among those that are trained."""
    epoch: int
    train_loss: float
    """Averaged over the epoch's batches, each before its step; nats, or half squared errors."""
    train_accuracy: float
    """NaN without classes, as the next."""
    validation_loss: float
    """After the epoch; NaN without a validation set."""
    validation_accuracy: float
    weight_norm: float
    """Euclidean norm of all weights, biases aside."""
    weights_sha256: str
    """Digest of the weights after the epoch."""


def train(models: Sequence[Model], *, device: str = "auto") -> Iterator[tuple[Row, Weights]]:
    """Train models from their initial weights, epoch by epoch.

    Models that fit in one stack are trained side by side, others one after another; the bits are
    the same. A model whose numbers go beyond all bounds ends there, and the others go on.

    Parameters
    ----------
    models
        At least one.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Yields
    ------
    row : Row
        Of one model after one epoch.
    weights : Weights
        After that epoch: float32, on the CPU.

    Raises
    ------
    UserError
        If there is nothing to train on, or no such device.
    """
    place = devices.resolve(device)
    if not all(len(model.train) for model in models):
        raise UserError("training set: it is empty; check data.limit and data.validation")
    devices.keep_freed_memory()
    if len(models) > 1 and not stackable(
        [m.settings for m in models], [m.train for m in models], [m.validation for m in models]
    ):
        for number, model in enumerate(models):
            for row, alone in train([model], device=device):
                yield replace(row, model=number), alone
        return
    engine, examples, validation = _start(models, place)
    going = list(range(len(models)))
    watched = all(len(model.validation) for model in models)
    for epoch in range(1, models[0].settings.epochs + 1):
        fits = _listed(engine.train_epoch(examples, epoch))
        validations = _listed(engine.fit(validation)) if watched else [NOTHING] * len(models)
        weights = _listed(engine.weights())
        going = [i for i in going if math.isfinite(fits[i].loss) and _finite(weights[i])]
        for i in going:
            yield _row(i, epoch, fits[i], validations[i], weights[i]), weights[i]
        if not going:
            return


def contract(settings: Settings, device: torch.device) -> str:
    """What a training's bits may depend on: the same contract, settings and data, the same bits."""
    return CONTRACT if settings.numerics == "portable" else f"native/{device.type}"


def start(settings: Settings, device: torch.device) -> Engine:
    """The engine that `settings` name, with its initial weights on `device`."""
    return ENGINES[settings.numerics](settings, initial.of(settings), device)


def _start(
    models: Sequence[Model], device: torch.device
) -> tuple[Engine | Stack, Examples, Examples]:
    """The engine of one model or of a stack, and its examples."""
    training = [model.train.to(device) for model in models]
    validation = [model.validation.to(device) for model in models]
    if len(models) == 1:
        return start(models[0].settings, device), training[0], validation[0]
    settings = [model.settings for model in models]
    stack = Stack(settings, [initial.of(s) for s in settings], device)
    return stack, stack_examples(training), stack_examples(validation)


def _listed(values: Any) -> list[Any]:
    """One value for every model."""
    return values if isinstance(values, list) else [values]


def _finite(weights: Weights) -> bool:
    """Whether no weight and no bias is infinite or NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def _row(model: int, epoch: int, fit: Fit, validation: Fit, weights: Weights) -> Row:
    return Row(
        model=model,
        epoch=epoch,
        train_loss=fit.loss,
        train_accuracy=fit.accuracy,
        validation_loss=validation.loss,
        validation_accuracy=validation.accuracy,
        weight_norm=norms.l2(weights),
        weights_sha256=digest.weights(weights),
    )


@dataclass(kw_only=True, slots=True)
class Training:
    """What the training of one model came to."""

    settings: Settings
    weights: Weights
    """After the last epoch of the history."""
    history: list[Row]

    @property
    def diverged(self) -> bool:
        """Whether its numbers went beyond all bounds in the epoch after the last."""
        return len(self.history) < self.settings.epochs

    @property
    def digest(self) -> str:
        """Of the weights."""
        if self.history:
            return self.history[-1].weights_sha256
        return digest.weights(self.weights)


def collect(models: Sequence[Model], rows: Iterable[tuple[Row, Weights]]) -> list[Training]:
    """Go through all that `train` yields, and keep the history and the last weights of each."""
    trainings = [
        Training(settings=m.settings, weights=initial.of(m.settings), history=[]) for m in models
    ]
    for row, weights in rows:
        trainings[row.model].history.append(row)
        trainings[row.model].weights = weights
    return trainings


def refuse_divergence(title: str, trainings: Iterable[Training]) -> None:
    """Refuse trainings that did not reach their last epoch.

    Raises
    ------
    UserError
        For the first of them.
    """
    for training in trainings:
        if training.diverged:
            raise UserError(
                f"{title}: diverged in epoch {len(training.history) + 1} (numbers beyond all "
                f"bounds); use a learning rate below {training.settings.lr:g}"
            )
