"""Classify images with a trained model: the same bits on every machine."""

import numpy as np
import torch

from refashion.base.errors import UserError
from refashion.portable.softmax import softmax
from refashion.training.initial import Weights
from refashion.training.portable import outputs
from refashion.training.settings import NUM_INPUTS


def probabilities(weights: Weights, images: np.ndarray) -> np.ndarray:
    """Probabilities of the classes, float64 [n, 10], of images, uint8 [n, 28, 28].

    Pixels go from 0 (black) to 255 (white).

    Raises
    ------
    UserError
        If the pixels were numbers from 0 to 1 before they became uint8.
    """
    # Scaled pixels lose their fractions on the way, and the answer would be a confident wrong one.
    for i in np.flatnonzero(images.max(axis=(1, 2), initial=0) == 1):
        raise UserError(
            f"image {i}: no pixel is above 1, but pixels go from 0 to 255; multiply them by 255"
        )
    pixels = torch.tensor(images.reshape(len(images), NUM_INPUTS))
    return softmax(outputs(weights, pixels)).numpy()
