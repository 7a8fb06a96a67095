"""The epoch loop: from settings and examples to rows of a history and weights."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from refashion.base.errors import UserError
from refashion.training import device as devices
from refashion.training import digest, initial, norms
from refashion.training.engine import Examples, Metrics
from refashion.training.initial import Weights
from refashion.training.native import NativeEngine
from refashion.training.portable import CONTRACT, PortableEngine
from refashion.training.settings import Settings
from refashion.training.stack import Stack

Engine = NativeEngine | PortableEngine
NO_METRICS = Metrics(loss=math.nan, accuracy=math.nan)
"""Those of an empty validation set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model to be trained."""

    settings: Settings
    train: Examples
    validation: Examples
    """Evaluated after every epoch; it may be empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A model after an epoch: a row of its history, and the model's number."""

    model: int
    """Index among the models that are trained."""
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

    Models that fit in one stack are trained side by side, and stacks one after another; the bits
    are the same. A model whose numbers go beyond all bounds ends there, and the others go on.

    Parameters
    ----------
    models
        At least one. Those with the same seed and the same object as training set share batches.
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
    for numbers in _stacks(models):
        for row, weights in _train([models[i] for i in numbers], place):
            yield replace(row, model=numbers[row.model]), weights


def _train(models: Sequence[Model], place: torch.device) -> Iterator[tuple[Row, Weights]]:
    """Train the models of one stack."""
    sets = {id(e): e.to(place) for model in models for e in (model.train, model.validation)}
    training_set: Any = [sets[id(model.train)] for model in models]
    validation_set: Any = [sets[id(model.validation)] for model in models]
    engine: Engine | Stack
    if len(models) > 1:
        engine = Stack([model.settings for model in models], place)
    else:
        engine = start(models[0].settings, place)
        (training_set,), (validation_set,) = training_set, validation_set
    running = list(range(len(models)))
    for epoch in range(1, models[0].settings.epochs + 1):
        training_metrics = _listed(engine.train_epoch(training_set, epoch))
        validation_metrics = [NO_METRICS] * len(models)
        if len(models[0].validation):
            validation_metrics = _listed(engine.evaluate(validation_set))
        weights = _listed(engine.weights())
        running = [i for i in running if _finite(training_metrics[i], weights[i])]
        for i in running:
            row = Row(
                model=i,
                epoch=epoch,
                train_loss=training_metrics[i].loss,
                train_accuracy=training_metrics[i].accuracy,
                validation_loss=validation_metrics[i].loss,
                validation_accuracy=validation_metrics[i].accuracy,
                weight_norm=norms.l2(weights[i]),
                weights_sha256=digest.weights(weights[i]),
            )
            yield row, weights[i]
        if not running:
            return


def contract(settings: Settings, device: torch.device) -> str:
    """What a training's bits may depend on: the same contract, settings and data, the same bits."""
    return CONTRACT if settings.numerics == "portable" else f"native/{device.type}"


def start(settings: Settings, device: torch.device) -> Engine:
    """The engine that `settings` name, with its initial weights on `device`."""
    engine = PortableEngine if settings.numerics == "portable" else NativeEngine
    return engine(settings, initial.of(settings), device)


def _stacks(models: Sequence[Model]) -> list[list[int]]:
    """Numbers of the models of every stack.

    They may differ in data, though not in how many, and in settings that change no shape. Models
    that share batches have a stack of their own.
    """
    kinds: list[Any] = []
    for number, m in enumerate(models):
        alike = replace(m.settings, seed=0, lr=0.0, weight_decay=0.0, momentum=0.0, dropout=())
        sizes = m.train.inputs.dtype, m.train.inputs.shape, len(m.validation)
        kinds.append((alike, sizes) if alike.numerics == "portable" else number)
    batches = [(kind, m.settings.seed, id(m.train)) for kind, m in zip(kinds, models, strict=True)]
    sharing, stacks = Counter(batches), defaultdict(list)
    for number, batch in enumerate(batches):
        stacks[batch if sharing[batch] > 1 else kinds[number]].append(number)
    return list(stacks.values())


def _listed(values: Any) -> list[Any]:
    """One value for every model."""
    return values if isinstance(values, list) else [values]


def _finite(metrics: Metrics, weights: Weights) -> bool:
    """Whether the loss and all weights and biases are numbers within bounds."""
    return math.isfinite(metrics.loss) and all(
        bool(torch.isfinite(tensor).all()) for tensor in weights.values()
    )


@dataclass(kw_only=True, slots=True)
class Training:
    """The result of training one model."""

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
        """SHA-256 of the weights (`refashion.training.digest`)."""
        if self.history:
            return self.history[-1].weights_sha256
        return digest.weights(self.weights)


def collect(models: Sequence[Model], rows: Iterable[tuple[Row, Weights]]) -> list[Training]:
    """Gather what `train` yields: the history and the last weights of every model."""
    trainings = [
        Training(settings=m.settings, weights=initial.of(m.settings), history=[]) for m in models
    ]
    for row, weights in rows:
        trainings[row.model].history.append(row)
        trainings[row.model].weights = weights
    return trainings


def refuse_divergence(title: str, trainings: Iterable[Training]) -> None:
    """Raise `UserError` for the first training that did not reach its last epoch."""
    for training in trainings:
        if training.diverged:
            raise UserError(
                f"{title}: diverged in epoch {len(training.history) + 1} (numbers beyond all "
                f"bounds); use a learning rate below {training.settings.lr:g}"
            )
