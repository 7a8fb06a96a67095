"""Results on emulated processors. Minutes: ``make test-emulated``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from refashion import selftest

pytestmark = pytest.mark.emulated

TESTS = Path(__file__).parents[1]
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


def run(python: list[str], processor: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on an emulated processor, with the code that is imported here."""
    source = Path(selftest.__file__).parents[1]
    environment = os.environ | {"QEMU_CPU": processor, "PYTHONPATH": str(source)}
    return subprocess.run([*python, *arguments], env=environment, capture_output=True, text=True)


def printed(python: list[str], processor: str, script: str) -> dict[str, Any]:
    """JSON that a script of the tests prints."""
    done = run(python, processor, str(TESTS / script))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def portable() -> str:
    """Hash of everything portable, without emulation."""
    return printed([sys.executable], "", "fingerprint.py")["portable"]


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
    done = run(python, processor, "-m", "refashion.selftest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("identical") == len(selftest.INSTANCES)
    assert f"({capability}, " in done.stdout


@pytest.mark.parametrize(
    ("architecture", "processor"), [("x86_64", SANDY_BRIDGE), ("aarch64", CORTEX), ("aarch64", SVE)]
)
def test_everything_else_that_is_portable(
    architecture: str, processor: str, portable: str, request: pytest.FixtureRequest
) -> None:
    """Logits, losses, functions and streams too."""
    python = request.getfixturevalue(architecture)
    fingerprint = printed(python, processor, "fingerprint.py")
    assert fingerprint["portable"] == portable
    assert fingerprint["architecture"] == architecture


def test_canonical_results_have_one_digest(x86_64: list[str]) -> None:
    """Without fused multiply-add and 256-bit vectors, which do move what is not canonical."""
    plain = printed([sys.executable], "", "bits.py")
    emulated = printed(x86_64, SANDY_BRIDGE, "bits.py")
    assert emulated["canonical"] == plain["canonical"]
    for name in ("pow", "exp"):
        assert emulated["controls"][name] != plain["controls"][name]
