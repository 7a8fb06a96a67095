"""Classify images with a model of the workspace, of a run or of the registry."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data.catalogue import DATASETS
from refashion.data.idx import SIDE
from refashion.evaluation import classify
from refashion.evaluation import model as trained_model
from refashion.runs import listing
from refashion.runs.run import AGAIN, Run, in_folder
from refashion.training.initial import Weights

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Of Pillow's, those that it reads by itself: EPS would be handed to another program."""

ADVICE = f"give a picture of {SIDE}x{SIDE} pixels, light on black as in the data set"

Images: TypeAlias = np.ndarray | Tensor | Image.Image | Sequence[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A trained classifier of images, which `refashion.load` gives.

    Images are light on black, of 28x28 pixels: uint8 arrays or tensors from 0 (black) to 255
    (white) of the shape [n, 28, 28] or [n, 784]; or pictures of Pillow, whose colours are taken as
    grey and what is transparent as black. One image may stand alone. `UserError` refuses others.

    Attributes
    ----------
    name : str
        The variant's.
    source : str
        The checkout, the MLflow run or the registered model that it comes from.
    classes : tuple of str
        Names of the classes, in the order of the probabilities.
    weights : dict of str to Tensor
        Of every layer, by the names of their safetensors file: float32.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    weights: Weights = field(repr=False)

    def predict(self, images: Images) -> np.ndarray:
        """Name of the likeliest class of each image: str [n]."""
        return np.array(self.classes)[self.probabilities(images).argmax(axis=1)]

    def probabilities(self, images: Images) -> np.ndarray:
        """Probabilities of the classes: float64 [n, 10], the same bits on every machine."""
        return classify.probabilities(self.weights, _decoded(images))


def _decoded(images: Any) -> Any:
    """Pictures as arrays, alone or in a list; all else as it is."""
    if isinstance(images, list | tuple):
        return [_decoded(image) for image in images]
    return np.asarray(_grey(images)) if isinstance(images, Image.Image) else images


def _grey(picture: Image.Image) -> Image.Image:
    """A picture the right way up, as 8 bits of grey, with black behind what is transparent."""
    tiles = getattr(picture, "tile", ())  # of a file
    if picture.mode.startswith(("I", "F")) or any(_is_deep(*tile) for tile in tiles):
        raise UserError("has more than 8 bits a channel; save it with 8")
    try:
        rgba = ImageOps.exif_transpose(picture).convert("RGBA")
    except Exception as error:  # of damaged data or metadata, of any kind
        raise _unreadable(error) from None
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba).convert("L")


def _is_deep(decoder: str, _extents: Any, _offset: int, encoding: Any) -> bool:
    """Whether a part of a file has more than 8 bits a channel, which Pillow would cut to 8."""
    if decoder.startswith("ppm") and isinstance(encoding, tuple):
        return int(encoding[1]) > 255  # the file's value of white; one of bits has none
    return re.search(";16[A-Z]", str(encoding)) is not None  # as RGB;16B; BGR;16 is of a pixel


def read(file: Path, resize: bool = False) -> np.ndarray:
    """Read an image of one of the `FORMATS` as `Model` takes it: uint8 [28, 28].

    On request other sizes are scaled by Lanczos' filter, with black borders beside what is no
    square. `UserError` if the file is missing, is no image, has not 28x28 pixels of 8 bits, or
    more than 89 million pixels; it says what is wrong, but not with which file.
    """
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise UserError("is no file; name the pictures themselves")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as picture:
                _refuse_shape(*picture.size, resize)
                grey = _grey(picture)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError("no such file; check its name") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = re.findall(r"\d+", str(error))[0]  # Pillow tells no more of it
        raise UserError(
            f"has {pixels} pixels, more than {Image.MAX_IMAGE_PIXELS}; scale it down first"
        ) from None
    except UnidentifiedImageError:
        raise UserError(f"is not an image; {ADVICE}") from None
    except Exception as error:  # of damaged data, of any kind
        raise _unreadable(error) from None
    return np.asarray(ImageOps.pad(grey, (SIDE, SIDE), Image.Resampling.LANCZOS))


def _refuse_shape(width: int, height: int, resize: bool) -> None:
    if (width, height) != (SIDE, SIDE) and not resize:
        raise UserError(f"has {width}x{height} pixels, not {SIDE}x{SIDE}; scale it with --resize")
    if 2 * SIDE * min(width, height) <= max(width, height):
        raise UserError(
            f"has {width}x{height} pixels, of which nothing is left in {SIDE}x{SIDE}; cut it first"
        )


def _unreadable(error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"cannot be read ({reason}); {ADVICE}")


def load(workspace: Workspace, model: str | None = None) -> Model:
    """Load a trained model of a workspace, as `refashion.load` does of the present one."""
    if not isinstance(model, str | None):
        raise UserError(f"{model!r}: name a model by text, as in load('mlp')")
    if model is not None and model.startswith("models:/"):
        return _of_registry(workspace, model)
    variants = workspace.params().variants
    if model is None or model in variants:
        return _model(str(workspace.root), *trained_here(workspace, model))
    try:
        return _of_run(workspace, model)
    except UserError as error:
        raise UserError(f"{error} (variants here: {', '.join(variants)})") from None


def trained_here(workspace: Workspace, variant: str | None) -> tuple[str, str, Weights]:
    """Name, data set and weights of a variant trained here; by default of the best one.

    `UserError` if there is no such variant, or its model is missing or altered.
    """
    settings = workspace.params()
    chosen = variant or _best(list(settings.variants), workspace)
    settings.variant(chosen)  # refuses other names
    return _read(listing.variant(workspace, chosen))


def _read(run: Run) -> tuple[str, str, Weights]:
    """Name, data set and weights of a run."""
    return run.name, run.record.data["dataset"], trained_model.load(run)


def _best(variants: Sequence[str], workspace: Workspace) -> str:
    """The only variant, or the one with the best accuracy on the test set."""
    if len(variants) == 1:
        return variants[0]
    file = workspace.comparison
    compared = files.read_json(file, AGAIN).get("variants", {}) if file.exists() else {}
    try:
        accuracies = {name: compared[name]["accuracy"] for name in variants if name in compared}
        return max(accuracies, key=accuracies.__getitem__)
    except (ValueError, TypeError, KeyError):  # there is none, or the file was altered
        raise UserError(
            f"{file}: compares no variant of params.yaml; run `dvc repro`, or name one: "
            f"{', '.join(variants)}"
        ) from None


def _of_run(workspace: Workspace, text: str) -> Model:
    """The model of a run that was published to MLflow."""
    from refashion.serving import registry
    from refashion.tracking import published, store

    with TemporaryDirectory() as folder, store.connect(workspace, reading=True) as connected:
        mlflow_run = registry.one_run(text, connected)
        run = published.read(mlflow_run, Path(folder), connected).run
        return _model(f"run {mlflow_run.info.run_id}", *_read(run))


def _of_registry(workspace: Workspace, uri: str) -> Model:
    """A model that `refashion register` made: its weights are read, and none of its code is run."""
    from refashion.tracking import store

    with (
        TemporaryDirectory() as folder,
        store.connect(workspace, reading=True) as connected,
        store.by_default(connected),
    ):
        from mlflow.artifacts import download_artifacts

        model = Path(download_artifacts(uri, dst_path=folder))
        if not (model / "MLmodel").is_file():
            raise UserError(
                f"{uri}: its files are missing; `refashion publish` mends the model of a run that "
                "is in the workspace or a DVC experiment; else choose another"
            )
        here = model / "artifacts"
        if not (here / "record.json").is_file():
            raise UserError(f"{uri}: is no model of this project; make one by `refashion register`")
        return _model(uri, *_read(in_folder(here, uri)))


def _model(source: str, name: str, dataset: str, weights: Weights) -> Model:
    """A model whose classes are those of its data set."""
    if dataset not in DATASETS:
        raise UserError(f"{source}: learnt {dataset}, which has no images; choose a classifier")
    return Model(name=name, source=source, classes=DATASETS[dataset].classes, weights=weights)
