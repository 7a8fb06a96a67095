"""How a contender works: in a process of its own, one epoch whenever it is asked for one."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor


class Model(NamedTuple):
    """A network in training."""

    train_epoch: Callable[[], object]
    """Trains one epoch more."""

    weights: Callable[[], Iterable[Tensor]]
    """The present weights and biases, always in one order."""


def serve(about: Mapping[str, object], contender: Callable[[str], Model]) -> None:
    """Answer every line on stdin, the name of a variant, with the seconds of one epoch.

    And with the hash of the weights after it.

    Parameters
    ----------
    about
        Versions and settings; the first line on stdout.
    contender
        Makes a variant ready to train, once; that takes no part in the times.
    """
    print(json.dumps(about), flush=True)
    models: dict[str, Model] = {}
    try:
        for line in sys.stdin:
            variant = line.strip()
            if variant not in models:
                models[variant] = contender(variant)
            tick = time.perf_counter()
            models[variant].train_epoch()
            seconds = time.perf_counter() - tick
            print(json.dumps([seconds, sha256(models[variant].weights())]), flush=True)
    except KeyboardInterrupt:
        sys.exit(130)


def sha256(tensors: Iterable[Tensor]) -> str:
    """Digest of the tensors' bytes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
