"""The epoch loop: from settings and examples to a trained model."""

import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import torch

from refashion.base.errors import UserError
from refashion.training import device as devices
from refashion.training import digest, initial, norms
from refashion.training.engine import Engine, Examples, Fit
from refashion.training.initial import Weights
from refashion.training.native import NativeEngine
from refashion.training.portable import PortableEngine
from refashion.training.progress import Progress
from refashion.training.settings import Settings
from refashion.training.stack import Separately, Stack, Together, stackable

ENGINES: dict[str, type[Engine]] = {"native": NativeEngine, "portable": PortableEngine}
NOTHING = Fit(loss=math.nan, accuracy=math.nan)
"""Of a validation set that is empty."""

AfterEpoch = Callable[[int, "Epoch", Weights, float], None]
"""Called with a model's number, the row of an epoch, the weights after it, and its seconds."""


class Split(Protocol):
    """Examples as they lie on disk."""

    @property
    def images(self) -> np.ndarray:
        """uint8 [n, 784]."""

    @property
    def labels(self) -> np.ndarray:
        """uint8 [n]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One row of the history."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What a training leaves."""

    weights: Weights
    history: list[Epoch]
    contract: str
    timings: dict[str, Any]
    """Volatile: seconds, memory, device and versions."""
    diverged: bool = False
    """Whether its numbers went beyond all bounds in the epoch after the last of the history."""


class Diverged(UserError):
    """The numbers of a training went beyond all bounds."""

    def __init__(self, message: str, before: Training) -> None:
        super().__init__(message)
        self.before = before
        """What it had come to before."""


def refuse_divergence(
    title: str, settings: Sequence[Settings], trainings: Sequence[Training]
) -> None:
    """Raise `Diverged` for the first training that did."""
    for own, training in zip(settings, trainings, strict=True):
        if training.diverged:
            raise Diverged(
                f"{title}: the training diverged in epoch {len(training.history) + 1} (numbers "
                f"beyond all bounds); use a learning rate below {own.lr:g}",
                training,
            )


def start(settings: Settings, device: torch.device) -> Engine:
    """The engine that `settings` name, with its initial weights on `device`."""
    devices.keep_freed_memory()
    return ENGINES[settings.numerics](settings, _initial(settings), device)


def _initial(settings: Settings) -> Weights:
    return initial.weights(settings.widths, settings.seed, settings.initialisation)


def train(
    settings: Settings,
    train: Split | Examples,
    validation: Split | Examples,
    *,
    device: str = "auto",
    title: str = "model",
) -> Training:
    """Train a model from its initial weights.

    Parameters
    ----------
    settings
        What determines the training.
    train, validation
        Examples to learn from and to watch; `validation` may be empty.
    device
        ``auto``, ``cpu`` or ``cuda``.
    title
        Names the model in the progress line.

    Raises
    ------
    Diverged
        If its numbers go beyond all bounds.
    UserError
        If there is nothing to train on, or no such device.
    """
    n = len(train if isinstance(train, Examples) else train.labels)
    with Progress(title, settings.epochs, n) as progress:
        trainings = train_together(
            [settings],
            [(train, validation)],
            device=device,
            after_epoch=lambda _, row, __, seconds: progress.show(row, seconds),
        )
    refuse_divergence(title, [settings], trainings)
    return trainings[0]


def train_together(
    settings: Sequence[Settings],
    data: Sequence[tuple[Split | Examples, Split | Examples]],
    *,
    device: str = "auto",
    after_epoch: AfterEpoch | None = None,
) -> list[Training]:
    """Train models side by side; in one stack, where they differ in seed, decay and data alone.

    A model whose numbers go beyond all bounds ends alone, with what it had come to before; the
    others go on.

    Parameters
    ----------
    settings
        Of every model; the engine and the number of epochs are the same.
    data
        Examples of every model to learn from and to watch, all or none of which are empty.
    device
        As for `train`.
    after_epoch
        Told of every epoch of every model.

    Raises
    ------
    UserError
        As for `train`.
    """
    place = devices.resolve(device)
    examples = [on_device(train, place) for train, _ in data]
    watched = [on_device(validation, place) for _, validation in data]
    if not all(map(len, examples)):
        raise UserError("training set: it is empty; check data.limit and data.validation")
    models = _start_all(settings, examples, watched, place)
    trainings = [_nothing_yet(models.contract, weights, place) for weights in models.weights()]
    for epoch in range(1, settings[0].epochs + 1):
        tick = time.perf_counter()
        fits = models.train_epoch(examples, epoch)
        seconds = (time.perf_counter() - tick) / len(settings)
        validations = models.fit(watched) if all(map(len, watched)) else [NOTHING] * len(settings)
        weights = models.weights()
        for i, training in enumerate(trainings):
            if training.diverged:
                continue
            if not (math.isfinite(fits[i].loss) and _finite(weights[i])):
                trainings[i] = replace(training, diverged=True)
                continue
            row = _row(epoch, fits[i], validations[i], weights[i])
            trainings[i] = _one_more(training, row, weights[i], seconds, len(examples[i]))
            if after_epoch:
                after_epoch(i, row, weights[i], seconds)
        if all(training.diverged for training in trainings):
            break
    return trainings


def _finite(weights: Weights) -> bool:
    """Whether no weight and no bias is infinite or NaN."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


def _nothing_yet(contract: str, weights: Weights, device: torch.device) -> Training:
    timings = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": 0.0,
        "seconds_per_epoch": [],
        "images_per_second": 0.0,
        "device": device.type,
        "device_name": devices.describe(device),
        **devices.software(),
    }
    return Training(weights=weights, history=[], contract=contract, timings=timings)


def _one_more(
    before: Training, row: Epoch, weights: Weights, seconds: float, images: int
) -> Training:
    """The training with an epoch more."""
    history = [*before.history, row]
    every = [*before.timings["seconds_per_epoch"], seconds]
    timings = {
        **before.timings,
        "seconds": math.fsum(every),
        "seconds_per_epoch": every,
        "images_per_second": images * len(every) / math.fsum(every),
        "peak_memory_mib": _peak_memory_mib(),
    }
    return replace(before, weights=weights, history=history, timings=timings)


def _start_all(
    settings: Sequence[Settings],
    examples: Sequence[Examples],
    watched: Sequence[Examples],
    device: torch.device,
) -> Together:
    assert len({s.numerics for s in settings}) == 1
    if stackable(settings, examples, watched):
        devices.keep_freed_memory()
        return Stack(settings, [_initial(s) for s in settings], device)
    return Separately([start(s, device) for s in settings])


def on_device(split: Split | Examples, device: torch.device) -> Examples:
    """The whole split, on the device: uint8 pixels need no worker processes."""
    if isinstance(split, Examples):
        return split.to(device)
    images = torch.from_numpy(np.require(split.images, requirements="W"))
    labels = torch.from_numpy(split.labels.astype(np.int64))
    return Examples(inputs=images, targets=labels).to(device)


def _row(epoch: int, fit: Fit, validation: Fit, weights: Weights) -> Epoch:
    return Epoch(
        epoch=epoch,
        train_loss=fit.loss,
        train_accuracy=fit.accuracy,
        validation_loss=validation.loss,
        validation_accuracy=validation.accuracy,
        weight_norm=norms.l2(weights),
        weights_sha256=digest.weights(weights),
    )


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
