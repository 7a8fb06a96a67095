"""The self-test on processors that this machine is not. Minutes: ``make test-emulated``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refashion import selftest

pytestmark = pytest.mark.emulated

FINGERPRINT = Path(__file__).parents[1] / "fingerprint.py"
# Without fused multiply-add, and on ARM64 without and with 256-bit vectors (SVE), for which torch
# has kernels of their own.
SANDY_BRIDGE, CORTEX, SVE = "SandyBridge", "cortex-a72", "max,sve-max-vq=2"


@pytest.fixture(scope="module")
def x86_64() -> list[str]:
    """Command of this Python under emulation."""
    qemu = shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("needs qemu-x86_64 (Debian: apt install qemu-user)")
    return [qemu, sys.executable]


@pytest.fixture(scope="module")
def aarch64() -> list[str]:
    """Command of a Python for ARM64 under emulation, built on first use."""
    script = Path(__file__).with_name("arm64.sh")
    build = subprocess.run([str(script)], capture_output=True, text=True)
    if build.returncode == 2:
        pytest.skip(build.stderr.strip())
    assert build.returncode == 0, build.stderr
    return [build.stdout.strip()]


def emulated(
    python: list[str], processor: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run Python on an emulated processor, with the code that is imported here."""
    source = Path(selftest.__file__).parents[1]
    environment = os.environ | {"QEMU_CPU": processor, "PYTHONPATH": str(source)}
    return subprocess.run([*python, *arguments], env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def here() -> str:
    """Hash of everything portable, without emulation."""
    command = [sys.executable, str(FINGERPRINT)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(output)["portable"]


@pytest.mark.parametrize(
    ("architecture", "processor", "capability"),
    [
        ("x86_64", "Haswell", "AVX2"),
        ("x86_64", "EPYC-Rome", "AVX2"),
        ("x86_64", SANDY_BRIDGE, "DEFAULT"),
        ("aarch64", CORTEX, "DEFAULT"),
        ("aarch64", SVE, "SVE256"),
    ],
)
def test_selftest(
    architecture: str, processor: str, capability: str, request: pytest.FixtureRequest
) -> None:
    python = request.getfixturevalue(architecture)
    found = emulated(python, processor, "-m", "refashion.selftest")
    assert found.returncode == 0, found.stdout + found.stderr
    assert found.stdout.count("identical") == len(selftest.INSTANCES)
    assert f"({capability}, " in found.stdout


@pytest.mark.parametrize(
    ("architecture", "processor"), [("x86_64", SANDY_BRIDGE), ("aarch64", CORTEX), ("aarch64", SVE)]
)
def test_everything_else_that_is_portable(
    architecture: str, processor: str, here: str, request: pytest.FixtureRequest
) -> None:
    """Logits, losses, functions and streams too."""
    python = request.getfixturevalue(architecture)
    there = emulated(python, processor, str(FINGERPRINT))
    assert there.returncode == 0, there.stderr
    fingerprint = json.loads(there.stdout)
    assert fingerprint["portable"] == here
    assert fingerprint["architecture"] == architecture
