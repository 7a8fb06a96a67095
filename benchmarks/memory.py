"""One training in a process of its own: ``python memory.py [ENGINE VARIANT FOLDER]``.

Without arguments, the process imports torch and does nothing else. Prints JSON: the seconds of
the second epoch and the largest memory (MiB) that the process had.
"""

import json
import resource
import sys
from pathlib import Path

import torch  # noqa: F401


def train(numerics: str, variant: str, folder: str) -> float:
    """Train for two epochs, as the stage does; the seconds of the second."""
    import numpy as np
    from contenders import settings

    from refashion.data import prepared
    from refashion.training import loop

    nothing = prepared.Split(images=np.empty((0, 784), np.uint8), labels=np.empty(0, np.uint8))
    training = loop.train(
        settings(variant, numerics, epochs=2), prepared.load(Path(folder)), nothing, device="cpu"
    )
    return training.timings["seconds_per_epoch"][-1]  # type: ignore[index]


if __name__ == "__main__":
    seconds = train(*sys.argv[1:]) if sys.argv[1:] else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    mib = peak / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"seconds": seconds, "peak_mib": mib}))
