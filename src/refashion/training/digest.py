"""Digests of weights: the same digest, the same bits."""

import hashlib

import torch

from refashion.training.initial import Weights


def weights(tensors: Weights) -> str:
    """SHA-256 of all weights: names, shapes and little-endian float32 bytes, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous().cpu()
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name}: weights must be float32, not {tensor.dtype}")
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()
