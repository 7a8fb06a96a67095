"""The metrics' bits: known, and the same whatever the processor can do."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import torch

from refashion.evaluation.metrics import evaluate


def digest() -> str:
    """SHA-256 of all that `evaluate` finds on outputs made of whole numbers."""
    i, j = torch.arange(1000)[:, None], torch.arange(10)
    logits = ((i * 7919 + j * 104729) % 2003 - 1001).to(torch.float64) / 128
    found = evaluate(logits, (i[:, 0] * 31 + logits.argmax(1) * (i[:, 0] % 3)) % 10, "0123456789")
    rows = [dataclasses.astuple(b) for b in found.calibration]
    text = json.dumps([found.metrics, rows, found.confidence.tolist(), found.confusion.tolist()])
    return hashlib.sha256(text.encode()).hexdigest()


GOLDEN = "b78a7a91184e193fc472b5309f77b85e811977a70a663307009bb3b92337a587"


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


def test_bits_do_not_depend_on_the_processors_abilities() -> None:
    """The simplest kernels and one thread, in a process of their own, find the same."""
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    code = f"import runpy; print(runpy.run_path({__file__!r})['digest']())"
    found = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == GOLDEN
