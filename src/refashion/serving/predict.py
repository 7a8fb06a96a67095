"""Classify image files with a model of the workspace, of a run or of the registry."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data.catalogue import DATASETS
from refashion.data.idx import SIDE
from refashion.runs import listing

if TYPE_CHECKING:
    import numpy as np

    from refashion.training.initial import Weights

ADVICE = f"give a picture of {SIDE}x{SIDE} pixels, light on black as in the data set"


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A trained model, wherever it comes from."""

    name: str
    """For messages."""

    classes: Sequence[str]
    """In the order of the probabilities."""

    probabilities: "Callable[[np.ndarray], np.ndarray]"
    """uint8 [n, 28, 28] to float64 [n, 10]."""

    def answer(self, images: "np.ndarray") -> list[dict[str, float]]:
        """Probability of every class, for each of the images, uint8 [n, 28, 28]."""
        rows = self.probabilities(images).tolist()
        return [dict(zip(self.classes, row, strict=True)) for row in rows]


def read(files: Sequence[Path]) -> "np.ndarray":
    """Read images as uint8 [n, 28, 28], colour as grey and what is transparent as black.

    Raises
    ------
    UserError
        If a file is missing, is no image, or has not 28x28 pixels of 8 bits.
    """
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                if image.size != (SIDE, SIDE):
                    size = "{}x{}".format(*image.size)
                    raise UserError(f"{file}: has {size} pixels; scale it to {SIDE}x{SIDE}")
                if image.mode.startswith(("I", "F")):
                    raise UserError(f"{file}: has more than 8 bits a pixel; save it with 8")
                rgba = image.convert("RGBA")
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; check its name") from None
        except UnidentifiedImageError:
            raise UserError(f"{file}: is not an image; {ADVICE}") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{file}: cannot be read ({reason}); {ADVICE}") from None
        black = Image.new("RGBA", rgba.size, "black")
        images.append(np.asarray(Image.alpha_composite(black, rgba).convert("L")))
    return np.stack(images)


def of_workspace(workspace: Workspace, variant: str | None) -> Model:
    """Load a model that the pipeline has trained here; by default the best. As `trained_here`."""
    chosen, dataset, weights = trained_here(workspace, variant)
    return _portable(f"{chosen}, trained here", dataset, weights)


def trained_here(workspace: Workspace, variant: str | None) -> "tuple[str, str, Weights]":
    """Name, data set and weights of a variant trained here; by default of the best one.

    Raises
    ------
    UserError
        If there is no such variant, or its model is missing or altered.
    """
    from refashion.evaluation import model

    settings = workspace.params()
    chosen = variant or _best(list(settings.variants), workspace)
    settings.variant(chosen)  # refuses other names
    run = listing.variant(workspace, chosen)
    return chosen, str(run.record.data["dataset"]), model.load(run)


def _best(variants: Sequence[str], workspace: Workspace) -> str:
    """The only variant, or the one with the best accuracy on the test set."""
    if len(variants) == 1:
        return variants[0]
    file = workspace.comparison
    compared = json.loads(file.read_text(encoding="utf-8"))["variants"] if file.exists() else {}
    measured = [name for name in variants if name in compared]
    if not measured:
        raise UserError(
            f"{file}: compares no variant of params.yaml; run `dvc repro`, or name one: "
            f"{', '.join(variants)}"
        )
    return max(measured, key=lambda name: compared[name]["accuracy"])


def of_run(workspace: Workspace, text: str) -> Model:
    """Load the model of a run that was published to MLflow.

    Raises
    ------
    UserError
        If the text does not mean one run, or an artifact of it is missing or was altered.
    """
    from refashion.evaluation import model
    from refashion.serving import registry
    from refashion.tracking import published, store

    with TemporaryDirectory() as folder, store.connect(workspace, reading=True) as connected:
        mlflow_run = registry.one_run(text, connected)
        run = published.read(mlflow_run, Path(folder), connected).run
        name = f"{run.name} of run {mlflow_run.info.run_id}"
        return _portable(name, str(run.record.data["dataset"]), model.load(run))


def of_registry(workspace: Workspace, uri: str) -> Model:
    """Load a model that `refashion register` made.

    Raises
    ------
    UserError
        If there is no such model, it was altered, or somebody else made it.
    """
    from refashion.tracking import store

    if not uri.startswith("models:/"):
        raise UserError(f"{uri}: names no model; give models:/NAME@ALIAS or models:/NAME/VERSION")
    with TemporaryDirectory() as folder, store.connect(workspace, reading=True) as connected:
        import mlflow

        source = connected.client.tracking_uri
        here = mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=source)
        about = mlflow.models.Model.load(here).metadata or {}
        if not {"classes", "run"} <= set(about):
            raise UserError(f"{uri}: is no model of this project; make one by `refashion register`")
        try:
            loaded = mlflow.pyfunc.load_model(here)
        except mlflow.MlflowException as error:
            raise UserError(f"{uri}: {error}") from None
    name = f"{about['run']} of {uri}"
    return Model(name=name, classes=about["classes"], probabilities=loaded.predict)


def _portable(name: str, dataset: str, weights: "Weights") -> Model:
    """Answer by the portable arithmetic, with the classes of the data set."""
    from refashion.serving import classify

    return Model(
        name=name,
        classes=DATASETS[dataset].classes,
        probabilities=lambda images: classify.probabilities(weights, images),
    )
