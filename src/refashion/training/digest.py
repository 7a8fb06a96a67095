"""Digests of weights: the same digest, the same bits."""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def weights(tensors: "Mapping[str, Tensor] | Mapping[str, np.ndarray]") -> str:
    """SHA-256 of all weights: names, shapes and little-endian float32 bytes, in order of name.

    They are arrays, or tensors on the CPU; torch, which takes a second to import, is not needed.
    `ValueError` if one is not float32.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype != "float32":
            raise ValueError(f"{name}: weights must be float32, not {dtype}")
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(np.asarray(tensor).astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
