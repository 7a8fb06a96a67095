"""Where the weights of deep networks start, and what becomes of their gradients (book, 4.8)."""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from itertools import zip_longest

from refashion.base.errors import UserError
from refashion.base.params.studies import InitialisationParams
from refashion.data import prepared
from refashion.data.prepared import Split
from refashion.studies.arm import Arm, Trainer
from refashion.studies.history import Row
from refashion.training import device as devices
from refashion.training import initial, loop, norms
from refashion.training.loop import Diverged, Training
from refashion.training.settings import Settings

NAME = "initialisation"
SCHEMES = ("constant", *initial.SCHEMES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gradient:
    """How large a layer's gradient is where a training starts."""

    arm: str
    depth: int
    """Hidden layers of the network."""
    layer: int
    """From 1, the first, to depth + 1, the output layer."""
    norm: float
    """Euclidean, of the gradient of the mean cross-entropy of all images."""


def run(
    p: InitialisationParams, split: Split, seed: int, numerics: str, device: str
) -> tuple[list[Arm], list[Gradient]]:
    """Train networks of every depth from every start on the first images of a split.

    Returns
    -------
    list of Arm
        One a scheme: its history holds the training loss by depth, and nothing from the epoch on
        in which a network diverges.
    list of Gradient
        Of every scheme, depth and layer.

    Raises
    ------
    UserError
        If there are fewer images.
    """
    if p.images > len(split.labels):
        raise UserError(
            f"studies.initialisation.images: {p.images} is more than the {len(split.labels)} "
            "training images; lower it"
        )
    chosen = Split(images=split.images[: p.images], labels=split.labels[: p.images])
    inputs = {"train": prepared.digest(chosen)}
    arms, gradients = [], []
    with Trainer(NAME, len(SCHEMES) * p.depths) as trainer:
        for scheme in SCHEMES:
            trainings, own = [], []
            for depth in range(1, p.depths + 1):
                settings = _settings(p, scheme, depth, seed, numerics)
                own += _gradients(settings, chosen, device)
                trainings.append(_train(trainer, settings, chosen, device))
            arms.append(
                Arm(
                    name=scheme,
                    params={**settings.as_dict(), "depths": p.depths, "images": p.images},
                    inputs=inputs,
                    trainings=trainings,
                    history=_history(trainings),
                    metrics=_metrics(trainings, own),
                    outputs={"gradients": _digest(own)},
                )
            )
            gradients += own
    return arms, gradients


def _train(trainer: Trainer, settings: Settings, split: Split, device: str) -> Training:
    """Train one network as far as its numbers stay within bounds."""
    nothing = Split(images=split.images[:0], labels=split.labels[:0])
    try:
        (training,), _ = trainer.train([settings], [(split, nothing)], device, lambda *_: {})
    except Diverged as end:
        return end.before
    return training


def _gradients(settings: Settings, split: Split, device: str) -> list[Gradient]:
    """Norms of the gradients of all images before the first step."""
    place = devices.resolve(device)
    found = loop.start(settings, place).gradients(loop.on_device(split, place))
    weights = {name: g for name, g in found.items() if name.endswith("weight")}
    arm, depth = settings.initialisation, len(settings.hidden)
    return [
        Gradient(arm=arm, depth=depth, layer=i, norm=norms.l2({name: gradient}))
        for i, (name, gradient) in enumerate(weights.items(), start=1)
    ]


def _history(trainings: Sequence[Training]) -> list[Row]:
    """Training loss by depth."""
    epochs = zip_longest(*(training.history for training in trainings))
    return [
        {f"loss_depth_{depth}": row.train_loss for depth, row in enumerate(rows, start=1) if row}
        for rows in epochs
    ]


def _metrics(trainings: Sequence[Training], gradients: Sequence[Gradient]) -> Row:
    """What became of the deepest network, and whether units of one layer can be told apart.

    Returns
    -------
    Row
        ``epochs``: that the deepest network was trained before its numbers went beyond all
        bounds; its ``accuracy`` and ``loss`` in the last of them; ``first_gradient`` and
        ``last_gradient``: the norms of its first and its output layer's gradient at the start;
        ``distinct_units``: how many of the units of the first layer differ at the end.
    """
    deepest = trainings[-1]
    of_deepest = [g.norm for g in gradients if g.depth == len(trainings)]
    units = deepest.weights["layers.0.weight"].unique(dim=1).shape[1]
    found: Row = {
        "epochs": len(deepest.history),
        "first_gradient": of_deepest[0],
        "last_gradient": of_deepest[-1],
        "distinct_units": units,
    }
    if deepest.history:
        found |= {
            "loss": deepest.history[-1].train_loss,
            "accuracy": deepest.history[-1].train_accuracy,
        }
    return found


def _digest(gradients: Sequence[Gradient]) -> str:
    return sha256(json.dumps([astuple(g) for g in gradients]).encode()).hexdigest()


def _settings(
    p: InitialisationParams, scheme: str, depth: int, seed: int, numerics: str
) -> Settings:
    return Settings(
        hidden=(p.width,) * depth,
        dropout=(0.0,) * depth,
        lr=p.lr,
        seed=seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
        weight_decay=0.0,
        momentum=0.0,
        numerics=numerics,
        initialisation=scheme,
    )
