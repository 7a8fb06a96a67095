"""Where the weights of deep networks start, and what becomes of their gradients (book, 4.8)."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.base.params.studies import InitialisationParams
from refashion.base.progress import progress
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.prepared import Split
from refashion.studies import study
from refashion.studies.study import Headline, Measures
from refashion.training import device as devices
from refashion.training import initial, loop, norms
from refashion.training.engine import Examples
from refashion.training.loop import Model, Training
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

Gradient = tuple[int, int, float]
"""Hidden layers of a network; layer, from 1, the first, to the output layer; and the Euclidean norm
of that layer's gradient where training starts, of the mean cross-entropy of all images."""


def run(workspace: Workspace, params: Params) -> Headline:
    """Train networks of every depth from every start on the first training images.

    One run a scheme: its history holds the training loss by depth, and nothing from the epoch on
    in which a network diverges.

    Returns
    -------
    Headline
        Accuracy of the deepest networks from N(0, 0.01), as the book's others start, and from
        Xavier's scale.

    Raises
    ------
    UserError
        If there are fewer images.
    """
    p = params.studies.initialisation
    split = prepared.load(workspace.train)
    if p.images > len(split.labels):
        raise UserError(
            f"studies.initialisation.images: {p.images} is more than the {len(split.labels)} "
            "training images; lower it"
        )
    chosen = Split(images=split.images[: p.images], labels=split.labels[: p.images])
    examples = Examples.of_images(chosen.images, chosen.labels)
    accuracies: dict[str, float] = {}
    deepest: list[Sequence[Any]] = []
    with progress(NAME, len(SCHEMES) * p.depths * p.epochs, "epochs") as advance:
        for scheme in SCHEMES:
            models = [
                Model(
                    settings=settings(p, scheme, depth, params),
                    train=examples,
                    validation=examples[:0],
                )
                for depth in range(1, p.depths + 1)
            ]
            gradients = [g for model in models for g in _gradients(model, params.device)]
            trained = study.together(
                [study.train([model], params.device, advance) for model in models]
            )
            metrics = _metrics(trained.trainings, gradients)
            study.write_run(
                workspace,
                NAME,
                scheme,
                trained,
                data={**params.data.model_dump(), "limit": p.images},
                inputs={"train": prepared.digest(chosen)},
                params={
                    **models[-1].settings.as_dict(),
                    "depths": p.depths,
                    "images": p.images,
                },
                history=_history(trained.trainings),
                metrics=metrics,
                tables={"gradients.csv": (["depth", "layer", "norm"], gradients)},
            )
            accuracies[scheme] = metrics.get("accuracy", 0.0)
            deepest += [[scheme, layer, norm] for d, layer, norm in gradients if d == p.depths]
    folder = workspace.study_folder(NAME)
    files.write_csv(folder / "gradients.csv", ["run", "layer", "norm"], deepest)
    return {"deepest_accuracy": {s: accuracies[s] for s in ("small_normal", "xavier")}}


def _gradients(model: Model, device: str) -> list[Gradient]:
    """Norms of the gradients of all images before the first step."""
    place = devices.resolve(device)
    gradients = loop.start(model.settings, place).gradients(model.train.to(place))
    of_weights = {name: g for name, g in gradients.items() if name.endswith("weight")}
    return [
        (len(model.settings.hidden), layer, norms.l2({name: gradient}))
        for layer, (name, gradient) in enumerate(of_weights.items(), start=1)
    ]


def _history(trainings: Sequence[Training]) -> list[Measures]:
    """Training loss by depth."""
    epochs = zip_longest(*(training.history for training in trainings))
    return [
        {f"loss_depth_{depth}": row.train_loss for depth, row in enumerate(rows, start=1) if row}
        for rows in epochs
    ]


def _metrics(trainings: Sequence[Training], gradients: Sequence[Gradient]) -> dict[str, float]:
    """What became of the deepest network, and whether units of one layer can be told apart.

    Returns
    -------
    dict
        ``epochs``: that the deepest network was trained before its numbers went beyond all
        bounds; its ``accuracy`` and ``loss`` in the last of them; ``first_gradient`` and
        ``last_gradient``: the norms of its first and its output layer's gradient at the start;
        ``distinct_units``: how many of the units of the first layer differ at the end.
    """
    deepest = trainings[-1]
    of_deepest = [norm for depth, _, norm in gradients if depth == len(trainings)]
    metrics: dict[str, float] = {
        "epochs": len(deepest.history),
        "first_gradient": of_deepest[0],
        "last_gradient": of_deepest[-1],
        "distinct_units": deepest.weights["layers.0.weight"].unique(dim=1).shape[1],
    }
    if deepest.history:
        metrics["loss"] = deepest.history[-1].train_loss
        metrics["accuracy"] = deepest.history[-1].train_accuracy
    return metrics


def settings(p: InitialisationParams, scheme: str, depth: int, params: Params) -> Settings:
    """What determines one training."""
    return Settings(
        hidden=(p.width,) * depth,
        lr=p.lr,
        seed=params.seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
        numerics=params.numerics,
        initialisation=scheme,
    )
