"""The epoch loop: from settings and examples to rows of a history and weights."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from refashion.base.errors import UserError
from refashion.training import device as devices
from refashion.training import digest, initial, norms
from refashion.training.engine import Examples, Metrics, on_device
from refashion.training.initial import Weights
from refashion.training.native import NativeEngine
from refashion.training.portable import CONTRACT, PortableEngine
from refashion.training.settings import Settings
from refashion.training.workers import ALONE, Workers

Engine = NativeEngine | PortableEngine
ENGINES: dict[str, type[Engine]] = {"native": NativeEngine, "portable": PortableEngine}
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


@dataclass(kw_only=True, slots=True)
class State:
    """How far the training of some models has come.

    At the end of an epoch it is all that `train` needs to go on, with the bits of a training that
    was never interrupted.
    """

    trainings: list[Training]
    """Of every model, up to its last epoch."""
    stack: int = 0
    """Number of the stack that is being trained; those before it are done."""
    epoch: int = 0
    """Epochs that this stack has done."""
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    """What the stack's optimizer remembers of its steps; its own tensors, not copies."""

    @classmethod
    def start(cls, models: Sequence[Model]) -> "State":
        """The state before the first epoch: initial weights and no history."""
        chosen = [model.settings for model in models]
        drawn = {(s.seed, s.widths, s.initialisation): s for s in chosen}
        weights = {key: initial.of(s) for key, s in drawn.items()}
        return cls(
            trainings=[
                Training(
                    settings=s, weights=weights[s.seed, s.widths, s.initialisation], history=[]
                )
                for s in chosen
            ]
        )


def train(
    models: Sequence[Model],
    *,
    device: str = "auto",
    state: State | None = None,
    save: Callable[[State], None] | None = None,
    workers: Workers = ALONE,
) -> Iterator[tuple[Row, Weights]]:
    """Train models epoch by epoch, from their initial weights or from where a state is.

    Models that fit in one stack are trained side by side, and stacks one after another; the bits
    are the same. A model whose numbers go beyond all bounds ends there, and the others go on.

    Parameters
    ----------
    models
        At least one. Those with the same seed and the same object as training set share batches.
    device
        ``auto``, ``cpu`` or ``cuda``.
    state
        Where to begin, by default at the start; it is kept up to date, and holds the result.
    save
        Called with the state at the end of every epoch, once all its rows were taken.
    workers
        Processes that share the batches of a model. Models of a stack are trained by each of them.

    Yields
    ------
    row : Row
        Of one model after one epoch.
    weights : Weights
        After that epoch: float32, on the CPU.

    Raises
    ------
    UserError
        If there is nothing to train on, no such device, or several processes for the native
        engine.
    """
    place = devices.resolve(device)
    if not all(len(model.train) for model in models):
        raise UserError("training set: it is empty; check data.limit and data.validation")
    devices.keep_freed_memory()
    state = state or State.start(models)
    for number, members in enumerate(_stacks(models)):
        if number > state.stack:
            state.stack, state.epoch, state.optimizer = number, 0, {}
        if number == state.stack:
            yield from _train(models, members, place, state, save, workers)


def _train(
    all_models: Sequence[Model],
    members: Sequence[int],
    place: torch.device,
    state: State,
    save: Callable[[State], None] | None,
    workers: Workers,
) -> Iterator[tuple[Row, Weights]]:
    """Train the models of one stack, whose numbers are `members`."""
    models = [all_models[i] for i in members]
    trainings = [state.trainings[i] for i in members]
    known = {id(e): e for model in models for e in (model.train, model.validation)}
    sets = dict(zip(known, on_device(list(known.values()), place), strict=True))
    training_sets = [sets[id(model.train)] for model in models]
    validation_sets = [sets[id(model.validation)] for model in models]
    sharing = workers if len(models) == 1 else ALONE
    engine = start([m.settings for m in models], place, [t.weights for t in trainings], sharing)
    engine.load_optimizer_state(state.optimizer)
    running = [i for i, t in enumerate(trainings) if len(t.history) == state.epoch]
    for epoch in range(state.epoch + 1, models[0].settings.epochs + 1):
        training_metrics = engine.train_epoch(training_sets, epoch)
        validation_metrics = [NO_METRICS] * len(models)
        if len(models[0].validation):
            validation_metrics = engine.evaluate(validation_sets)
        weights = engine.weights()
        running = [
            i for i in running if _finite(training_metrics[i], validation_metrics[i], weights[i])
        ]
        for i in running:
            row = Row(
                model=members[i],
                epoch=epoch,
                train_loss=training_metrics[i].loss,
                train_accuracy=training_metrics[i].accuracy,
                validation_loss=validation_metrics[i].loss,
                validation_accuracy=validation_metrics[i].accuracy,
                weight_norm=norms.l2(weights[i]),
                weights_sha256=digest.weights(weights[i]),
            )
            trainings[i].history.append(row)
            trainings[i].weights = weights[i]
            yield row, weights[i]
        if not running:
            return
        state.epoch, state.optimizer = epoch, engine.optimizer_state()
        if save:
            save(state)


def contract(settings: Settings, device: torch.device) -> str:
    """What a training's bits may depend on: the same contract, settings and data, the same bits."""
    return CONTRACT if settings.numerics == "portable" else f"native/{device.type}"


def start(
    models: Sequence[Settings],
    device: torch.device,
    weights: Sequence[Weights] | None = None,
    workers: Workers = ALONE,
) -> Engine:
    """The engine that trains models side by side; by default from their initial weights.

    `UserError` for several processes, where it is the native one.
    """
    engine = ENGINES[models[0].numerics]
    return engine(models, weights or list(map(initial.of, models)), device, workers)


def _stacks(models: Sequence[Model]) -> list[list[int]]:
    """Numbers of the models of every stack.

    They may differ in data, though not in how many, and in settings that change no shape. Models
    that share batches have a stack of their own.
    """
    kinds: list[Any] = []
    for number, m in enumerate(models):
        alike = replace(m.settings, seed=0, lr=0.0, weight_decay=0.0, momentum=0.0, dropout=())
        sizes = m.train.inputs.dtype, len(m.train), len(m.validation)
        kinds.append((alike, sizes) if alike.numerics == "portable" else number)
    batches = [(kind, m.settings.seed, id(m.train)) for kind, m in zip(kinds, models, strict=True)]
    sharing, stacks = Counter(batches), defaultdict(list)
    for number, batch in enumerate(batches):
        stacks[batch if sharing[batch] > 1 else kinds[number]].append(number)
    return list(stacks.values())


def _finite(training: Metrics, validation: Metrics, weights: Weights) -> bool:
    """Whether the losses and all weights and biases are numbers within bounds."""
    losses = [training.loss, *([] if validation is NO_METRICS else [validation.loss])]
    return all(map(math.isfinite, losses)) and all(
        bool(torch.isfinite(tensor).all()) for tensor in weights.values()
    )


def refuse_divergence(title: str, trainings: Iterable[Training]) -> None:
    """Raise `UserError` for the first training that did not reach its last epoch."""
    for training in trainings:
        if training.diverged:
            s = training.settings
            cure = f"learning rate below {s.lr:g}"
            if s.lr * s.weight_decay >= 1 and s.weight_decay > s.lr:  # a step takes all of a weight
                cure = f"weight decay below {1 / s.lr:g}"
            raise UserError(
                f"{title}: diverged in epoch {len(training.history) + 1} (numbers beyond all "
                f"bounds); use a {cure}"
            )
