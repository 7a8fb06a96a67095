"""Canonical results on a processor that this machine is not. Minutes: ``make test-emulated``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

QEMU = shutil.which("qemu-x86_64")
BITS = Path(__file__).parents[1] / "bits.py"

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (Debian: apt install qemu-user)"),
]


def test_canonical_results_have_one_digest() -> None:
    """Without fused multiply-add and 256-bit vectors, which do move what is not canonical."""
    here, there = (
        json.loads(subprocess.check_output([*way, str(BITS)]).splitlines()[-1])
        for way in ([sys.executable], [str(QEMU), "-cpu", "SandyBridge", sys.executable])
    )
    assert there["canonical"] == here["canonical"]
    for name in ("pow", "exp"):
        assert there["controls"][name] != here["controls"][name]
