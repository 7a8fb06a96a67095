"""Classify images with a trained model: the same bits on every machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from refashion.base.errors import UserError
from refashion.portable.softmax import softmax
from refashion.training.initial import Weights
from refashion.training.portable import outputs
from refashion.training.settings import NUM_INPUTS

SIZE = (28, 28)
ADVICE = "give each as 28x28 or 784 whole numbers from 0 (black) to 255 (white)"


def probabilities(weights: Weights, images: Any) -> np.ndarray:
    """Probabilities of the classes, float64 [n, 10], of images as `pixels` takes them.

    `UserError` for images that `pixels` refuses, and where the model's own numbers go beyond all
    bounds.
    """
    shares = softmax(outputs(weights, torch.from_numpy(pixels(images)))).numpy()
    for i in np.flatnonzero(~np.isfinite(shares).all(axis=1)):
        raise UserError(f"image {i}: the model's numbers go beyond all bounds; use another model")
    return shares


def pixels(images: Any) -> np.ndarray:
    """Images as rows of pixels, uint8 [n, 784].

    They are an array, a tensor or nested lists of the shape [n, 28, 28] or [n, 784], or a single
    image, [28, 28] or [784]; pixels are whole numbers from 0 (black) to 255 (white), of any
    integer type. `UserError` if the shape or the type is another, a number is out of range, or an
    image's brightest pixel is 1: pixels on a scale of 0 to 1 that lost their fractions.
    """
    try:
        array = np.asarray(images.detach().cpu() if isinstance(images, torch.Tensor) else images)
        if array.dtype == object:  # what JSON brings
            array = np.asarray(array.tolist())
    except (TypeError, ValueError, RuntimeError):  # the last for a tensor within a list
        raise UserError(f"images: differ in shape, or are no numbers; {ADVICE}") from None
    if array.shape in (SIZE, (NUM_INPUTS,)):
        array = array[np.newaxis]
    if array.shape[1:] not in (SIZE, (NUM_INPUTS,)):
        raise UserError(f"images: have the shape {array.shape}; {ADVICE}")
    if array.dtype.kind not in "iu":
        raise UserError(f"images: have pixels of type {array.dtype}; {ADVICE}")
    rows = array.reshape(len(array), NUM_INPUTS)
    least, most = rows.min(axis=1, initial=0), rows.max(axis=1, initial=0)
    for i in np.flatnonzero((least < 0) | (most > 255)):
        raise UserError(f"image {i}: has pixels from {least[i]} to {most[i]}; {ADVICE}")
    # Scaled pixels lose their fractions on the way, and the answer would be a confident wrong one.
    for i in np.flatnonzero(most == 1):
        raise UserError(f"image {i}: has no pixel above 1; multiply scaled pixels by 255")
    return rows.astype(np.uint8)


def answers(classes: Sequence[str], rows: np.ndarray) -> list[dict[str, Any]]:
    """For each row of probabilities [n, 10] the likeliest ``class`` and all ``probabilities``."""
    answers = (dict(zip(classes, row.tolist(), strict=True)) for row in rows)
    return [{"class": max(p, key=p.__getitem__), "probabilities": p} for p in answers]
