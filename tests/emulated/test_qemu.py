"""The self-test on processors that this machine is not. Minutes: ``make test-emulated``."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

QEMU = shutil.which("qemu-x86_64")
FINGERPRINT = Path(__file__).parents[1] / "fingerprint.py"

pytestmark = [
    pytest.mark.emulated,
    pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (Debian: apt install qemu-user)"),
]


def emulated(processor: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on an emulated processor."""
    command = [str(QEMU), "-cpu", processor, sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("processor", "capability"),
    [("Haswell", "AVX2"), ("EPYC-Rome", "AVX2"), ("SandyBridge", "DEFAULT")],
)
def test_selftest(processor: str, capability: str) -> None:
    found = emulated(processor, "-m", "refashion.selftest")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("identical") == 5
    assert f"({capability}, " in found.stdout


def test_everything_else_that_is_portable() -> None:
    """Logits, losses, functions and streams too, without fused multiply-add."""
    here = subprocess.run(
        [sys.executable, str(FINGERPRINT)], capture_output=True, text=True, check=True
    )
    there = emulated("SandyBridge", str(FINGERPRINT))
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["portable"] == json.loads(here.stdout)["portable"]
