"""Where the weights of deep networks start, and what becomes of their gradients (book, 4.8)."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.studies import study
from refashion.studies.study import Headline
from refashion.training import device as devices
from refashion.training import initial, loop
from refashion.training.engine import Examples, on_device
from refashion.training.loop import Model, Training
from refashion.training.norms import l2
from refashion.training.settings import Settings

NAME = "initialisation"
TITLE = "Initialisation"
NOTES = (
    "Networks of growing depth from five kinds of initial weights (book, section 4.8). From "
    "N(0, 0.01) gradients vanish with the depth, from N(0, 1) they explode; Xavier's and He's "
    "scales keep them.",
    "From constant weights all units of a layer stay equal: distinct_units is 1. The gradients "
    "that reach them at the start are zero but for rounding, since those of the classes add "
    "up to zero. A line ends where numbers went beyond all bounds.",
)
SCHEMES = ("constant", *initial.SCHEMES)


def run(workspace: Workspace, params: Params) -> Headline:
    """Train networks of every depth from every start on the first training images.

    Each scheme is a run. Its history holds the training loss by depth, and nothing from the epoch
    on in which a network diverges; `_metrics` tells what its metrics are. The headline is the
    accuracy of the deepest networks from N(0, 0.01), as the book's others start, and from Xavier's
    scale. `UserError` if there are fewer images than asked for.
    """
    p = params.studies.initialisation
    split = prepared.load(workspace.train)
    if p.images > len(split.labels):
        raise UserError(
            f"studies.initialisation.images: {p.images} is more than the {len(split.labels)} "
            "training images; lower it"
        )
    subset = split[: p.images]
    examples = Examples.of_images(subset.images, subset.labels)
    device = devices.resolve(params.device)
    accuracies: dict[str, float] = {}
    of_deepest: list[list[Any]] = []
    for scheme in SCHEMES:
        settings = Settings(
            lr=p.lr,
            seed=params.seed,
            epochs=p.epochs,
            batch_size=p.batch_size,
            numerics=params.numerics,
            initialisation=scheme,
        )
        networks = [replace(settings, hidden=(p.width,) * n) for n in range(1, p.depths + 1)]
        models = [Model(settings=s, train=examples, validation=examples[:0]) for s in networks]
        norms = [_gradient_norms(model, device) for model in models]
        trained = study.train(f"{NAME}/{scheme}", models, params.device, may_diverge=True)
        metrics = _metrics(trained[-1].training, norms[-1])
        history = [
            {f"loss_depth_{i}": row.train_loss for i, row in enumerate(rows, start=1) if row}
            for rows in zip_longest(*(t.training.history for t in trained))
        ]
        gradients = [
            [depth, layer, _finite(norm)]
            for depth, of_layers in enumerate(norms, start=1)
            for layer, norm in enumerate(of_layers, start=1)
        ]
        study.write_run(
            workspace,
            f"{NAME}/{scheme}",
            trained,
            data={**params.data.model_dump(), "limit": p.images},
            inputs={"train": prepared.digest(subset)},
            params={**networks[-1].as_dict(), "depths": p.depths, "images": p.images},
            history=history,
            metrics=metrics,
            tables={"gradients.csv": (["depth", "layer", "norm"], gradients)},
        )
        accuracies[scheme] = metrics.get("accuracy", 0.0)
        of_deepest += [
            [scheme, layer, _finite(norm)] for layer, norm in enumerate(norms[-1], start=1)
        ]
    file = workspace.study_folder(NAME) / "gradients.csv"
    files.write_csv(file, ["run", "layer", "norm"], of_deepest)
    return {"deepest_accuracy": {s: accuracies[s] for s in ("small_normal", "xavier")}}


def _gradient_norms(model: Model, device: torch.device) -> list[float]:
    """Norm of every layer's gradient at the start, of the mean loss of all images."""
    gradients = loop.start([model.settings], device).gradients(*on_device([model.train], device))
    return [l2({name: g}) for name, g in gradients.items() if name.endswith("weight")]


def _finite(norm: float) -> float | None:
    """A norm, None beyond all bounds."""
    return norm if math.isfinite(norm) else None


def _metrics(deepest: Training, gradient_norms: Sequence[float]) -> dict[str, float]:
    """Metrics of the deepest network.

    ``epochs`` that it was trained before its numbers went beyond all bounds, ``accuracy`` and
    ``loss`` in the last of them, ``first_gradient`` and ``last_gradient``: norms at the start, of
    the first and of the output layer, if they are within bounds, and how many units of the first
    layer are distinct at the end (``distinct_units``).
    """
    first, last = map(_finite, (gradient_norms[0], gradient_norms[-1]))
    metrics: dict[str, float] = {
        "epochs": len(deepest.history),
        **({} if first is None else {"first_gradient": first}),
        **({} if last is None else {"last_gradient": last}),
        "distinct_units": deepest.weights["layers.0.weight"].unique(dim=1).shape[1],
    }
    if deepest.history:
        metrics["loss"] = deepest.history[-1].train_loss
        metrics["accuracy"] = deepest.history[-1].train_accuracy
    return metrics
