"""One line of JSON: the bits of all canonical results that a process computes.

`test_bits.py` runs it under many settings. Every ``test_*_bits.py`` has a function ``digest``; its
result is named for the file. With ``--fingerprint`` it adds that of ``fingerprint.py``.
"""

import argparse
import contextlib
import hashlib
import json
import locale
import random
import runpy
import sys
from pathlib import Path

import numpy as np
import torch

import fingerprint

TESTS = Path(__file__).parent


def canonical() -> dict[str, str]:
    """Digest of the results of every module, by the name of its tests."""
    files = sorted(TESTS.glob("*/test_*_bits.py"))
    with contextlib.redirect_stdout(sys.stderr):  # studies print what they have done
        return {file.stem: runpy.run_path(str(file))["digest"]() for file in files}


def controls() -> dict[str, str]:
    """Results that the settings change, which proves that they have reached the process."""
    numbers = random.Random(0)
    values = [numbers.gauss(0, 1) for _ in range(60_000)]
    array = np.array(values)
    return {
        "pow": hashlib.sha256(np.array([x**2 for x in values])).hexdigest(),
        "exp": hashlib.sha256(np.exp(array)).hexdigest(),
        "sum": float(torch.from_numpy(array).to(torch.float32).sum()).hex(),
        "default dtype": str(torch.tensor([0.5]).dtype),
        "assertions": str(__debug__),
        "encoding": locale.getencoding(),
        "order of a set": " ".join({"a", "b", "c", "d", "e", "f", "g", "h"}),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--default-dtype", default="float32")
    parser.add_argument("--fingerprint", action="store_true")
    arguments = parser.parse_args()
    torch.set_default_dtype(getattr(torch, arguments.default_dtype))
    results = fingerprint.of_process() if arguments.fingerprint else {}
    print(json.dumps({**results, "canonical": canonical(), "controls": controls()}))
