"""Classes of image files, by a model of the workspace, of a run or of the registry."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refashion.base import params, paths
from refashion.base.errors import UserError
from refashion.data.catalogue import DATASETS
from refashion.data.idx import SIDE

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from refashion.training.initial import Weights

ADVICE = f"give a picture of {SIDE}x{SIDE} pixels, light on black as in the data set"


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """Something that answers images."""

    name: str
    """For people."""

    classes: Sequence[str]
    """In the order of the probabilities."""

    probabilities: "Callable[[np.ndarray], np.ndarray]"
    """uint8 [n, 28, 28] to float64 [n, 10]."""

    def answer(self, images: "np.ndarray") -> list[dict[str, float]]:
        """Probability of every class, for each of the images, uint8 [n, 28, 28]."""
        rows = self.probabilities(images).tolist()
        return [dict(zip(self.classes, row, strict=True)) for row in rows]


def read(files: Sequence[Path]) -> "np.ndarray":
    """Read images, colour as grey and what is transparent as black.

    Returns
    -------
    ndarray
        uint8 [n, 28, 28].

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
                _check(image, file)
                clear = image.convert("RGBA")
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; check its name") from None
        except UnidentifiedImageError:
            raise UserError(f"{file}: is not an image; {ADVICE}") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{file}: cannot be read ({reason}); {ADVICE}") from None
        black = Image.new("RGBA", clear.size, "black")
        images.append(np.asarray(Image.alpha_composite(black, clear).convert("L")))
    return np.stack(images)


def _check(image: "Image", file: Path) -> None:
    """Refuse other sizes, and pixels that would lose all but 8 of their bits."""
    width, height = image.size
    if image.size != (SIDE, SIDE):
        raise UserError(f"{file}: has {width}x{height} pixels; scale it to {SIDE}x{SIDE}")
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{file}: has more than 8 bits a pixel; save it with 8")


def of_workspace(variant: str | None) -> Model:
    """Take a model that the pipeline has trained here; by default the best one.

    Raises
    ------
    UserError
        If there is no such variant, or its model is missing or altered.
    """
    chosen, dataset, weights = trained_here(variant)
    return _portable(f"{chosen}, trained here", dataset, weights)


def trained_here(variant: str | None) -> "tuple[str, str, Weights]":
    """Name, data set and weights of a model as `of_workspace` takes it.

    Raises
    ------
    UserError
        As `of_workspace`.
    """
    from refashion.evaluation import model

    known = params.load(paths.PARAMS)
    chosen = variant or _best(list(known.variants))
    known.resolved(chosen)  # refuses other names
    weights = model.load(paths.weights(chosen), paths.record(chosen))
    return chosen, known.data.dataset, weights


def _best(variants: Sequence[str]) -> str:
    """The only variant, or the one with the best accuracy on the test set."""
    if len(variants) == 1:
        return variants[0]
    found: dict[str, Any] = {}
    if paths.COMPARISON.exists():
        found = json.loads(paths.COMPARISON.read_text(encoding="utf-8"))["variants"]
    measured = [name for name in variants if name in found]
    if not measured:
        raise UserError(
            f"{paths.COMPARISON}: compares no variant of {paths.PARAMS.name}; run `dvc repro`, or "
            f"choose with --variant: {', '.join(variants)}"
        )
    return max(measured, key=lambda name: found[name]["accuracy"])


def of_run(text: str) -> Model:
    """Take the model of a run.

    Raises
    ------
    UserError
        If the text does not mean one run, or an artifact of it is missing or was altered.
    """
    from refashion.evaluation import model
    from refashion.serving import registry
    from refashion.tracking import runs, store

    with tempfile.TemporaryDirectory() as folder, store.connect(reading=True) as found:
        published = runs.read(registry.one_run(text, found), Path(folder), found)
        files = (paths.weights(published.variant), paths.record(published.variant))
        weights = model.load(*map(published.file, files))
        name = f"{published.variant} of run {published.run_id}"
        return _portable(name, published.data.dataset, weights)


def of_registry(uri: str) -> Model:
    """Take a model that `refashion register` made.

    Raises
    ------
    UserError
        If there is no such model, it was altered, or somebody else made it.
    """
    from refashion.tracking import store

    if not uri.startswith("models:/"):
        raise UserError(f"{uri}: names no model; give models:/NAME@ALIAS or models:/NAME/VERSION")
    with tempfile.TemporaryDirectory() as folder, store.connect(reading=True) as found:
        import mlflow

        at = found.client.tracking_uri
        here = mlflow.artifacts.download_artifacts(uri, dst_path=folder, tracking_uri=at)
        about = mlflow.models.Model.load(here).metadata or {}
        if "classes" not in about or "run_key" not in about:
            raise UserError(f"{uri}: is no model of this project; make one by `refashion register`")
        try:
            loaded = mlflow.pyfunc.load_model(here)
        except mlflow.MlflowException as error:
            raise UserError(f"{uri}: {error}") from None
    name = f"{about['variant']} of {uri}"
    return Model(name=name, classes=about["classes"], probabilities=loaded.predict)


def _portable(name: str, dataset: str, weights: dict[str, Any]) -> Model:
    from refashion.serving import classify

    return Model(
        name=name,
        classes=DATASETS[dataset].classes,
        probabilities=lambda images: classify.probabilities(weights, images),
    )
