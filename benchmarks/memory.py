"""One training in a process of its own: ``python memory.py [ENGINE VARIANT FOLDER]``.

Without arguments, the process imports torch and does nothing else. Prints JSON: the seconds of
the second epoch and the largest memory (MiB) that the process had.
"""

import json
import resource
import sys
import time
from pathlib import Path

import torch  # noqa: F401


def train(numerics: str, variant: str, folder: str) -> float:
    """Train for two epochs, as the stage does; the seconds of the second."""
    from contenders import settings

    from refashion.data import prepared
    from refashion.training import loop
    from refashion.training.engine import Examples

    split = prepared.load(Path(folder))
    examples = Examples.of_images(split.images, split.labels)
    model = loop.Model(
        settings=settings(variant, numerics, epochs=2), train=examples, validation=examples[:0]
    )
    epochs = loop.train([model], device="cpu")
    next(epochs)
    started = time.perf_counter()
    next(epochs)
    return time.perf_counter() - started


if __name__ == "__main__":
    seconds = train(*sys.argv[1:]) if sys.argv[1:] else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"seconds": seconds, "peak_mib": mib}))
