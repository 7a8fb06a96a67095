"""The epoch loop: from settings and examples to a trained model."""

import math
import resource
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import torch

from refashion.errors import UserError
from refashion.portable import exact
from refashion.training import device as devices
from refashion.training import digest, initial
from refashion.training.engine import Engine, Examples, Fit
from refashion.training.initial import Weights
from refashion.training.native import NativeEngine
from refashion.training.portable import PortableEngine
from refashion.training.progress import Progress
from refashion.training.settings import Settings

ENGINES: dict[str, type[Engine]] = {"native": NativeEngine, "portable": PortableEngine}
NORM_BITS = 16


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
    """Nats, averaged over the epoch's batches, each before its step."""
    train_accuracy: float
    validation_loss: float
    """Nats, after the epoch; NaN without a validation set."""
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
    timings: dict[str, object]
    """Volatile: seconds, memory, device and versions."""


def start(settings: Settings, device: torch.device) -> Engine:
    """The engine that `settings` name, with its initial weights on `device`."""
    devices.keep_freed_memory()
    weights = initial.weights(settings.widths, settings.seed)
    return ENGINES[settings.numerics](settings, weights, device)


def train(
    settings: Settings,
    train: Split,
    validation: Split,
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
    UserError
        If there is nothing to train on, no such device, or the training diverges.
    """
    place = devices.resolve(device)
    if not len(train.labels):
        raise UserError("training set: it is empty; check data.limit and data.validation")
    examples, watched = _load(train, place), _load(validation, place)
    engine = start(settings, place)
    started, history, seconds = datetime.now(UTC), [], []
    with Progress(title, settings.epochs, len(examples)) as progress:
        for epoch in range(1, settings.epochs + 1):
            tick = time.perf_counter()
            fit = engine.train_epoch(examples, epoch)
            seconds.append(time.perf_counter() - tick)
            history.append(_row(epoch, fit, engine, watched))
            if not math.isfinite(fit.loss + history[-1].weight_norm):
                raise UserError(
                    f"{title}: the training diverged in epoch {epoch} (numbers beyond all "
                    f"bounds); use a learning rate below {settings.lr:g}"
                )
            progress.show(history[-1], seconds[-1])
    weights = engine.weights()
    return Training(
        weights=weights,
        history=history,
        contract=engine.contract,
        timings={
            "started": started.isoformat(timespec="seconds"),
            "seconds": sum(seconds),
            "seconds_per_epoch": seconds,
            "images_per_second": len(examples) * settings.epochs / sum(seconds),
            "peak_memory_mib": _peak_memory_mib(),
            "device": place.type,
            "device_name": devices.describe(place),
            **devices.software(),
        },
    )


def _load(split: Split, device: torch.device) -> Examples:
    """The whole split, on the device: uint8 pixels need no worker processes."""
    images = torch.from_numpy(np.require(split.images, requirements="W")).to(device)
    labels = torch.from_numpy(split.labels.astype(np.int64)).to(device)
    return Examples(images=images, labels=labels)


def _row(epoch: int, fit: Fit, engine: Engine, watched: Examples) -> Epoch:
    nothing = Fit(loss=math.nan, accuracy=math.nan)
    validation = engine.fit(watched) if len(watched) else nothing
    weights = engine.weights()
    return Epoch(
        epoch=epoch,
        train_loss=fit.loss,
        train_accuracy=fit.accuracy,
        validation_loss=validation.loss,
        validation_accuracy=validation.accuracy,
        weight_norm=_norm(weights),
        weights_sha256=digest.weights(weights),
    )


def _norm(weights: Weights) -> float:
    """Euclidean norm of the weights, squares of 16 bits summed exactly."""
    squares = 0.0
    for name, tensor in weights.items():
        if name.endswith("weight"):
            row = exact.quantise(tensor.reshape(1, -1).to(torch.float64), NORM_BITS)
            squares += float(exact.product(row, row.mT))
    return math.sqrt(squares)


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
