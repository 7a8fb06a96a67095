"""One hash, whatever the process is told about threads, vector units and libraries."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fingerprint.py")
SETTINGS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "three threads": {"OMP_NUM_THREADS": "3", "MKL_DYNAMIC": "FALSE"},  # on two processors too
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "no vector units": {"ATEN_CPU_CAPABILITY": "default"},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no FMA in glibc": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-FMA4"},
    "other hash seed": {"PYTHONHASHSEED": "12345"},
}
EVERYTHING = {k: v for environment in SETTINGS.values() for k, v in environment.items()}
"""All at once: three threads without vector units."""


@functools.cache
def fingerprint(*setting: str) -> dict[str, str]:
    """What the script prints in a process of its own, in another folder."""
    environment = {k: v for k, v in os.environ.items() if k not in EVERYTHING}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # more threads than processors: let none spin
    for name in setting:
        environment |= SETTINGS[name]
    printed = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return json.loads(printed)


@pytest.mark.parametrize(
    "setting",
    [tuple(SETTINGS), *(pytest.param((name,), marks=pytest.mark.ci) for name in SETTINGS)],
    ids=" and ".join,
)
def test_the_portable_engine_has_one_hash(setting: tuple[str, ...]) -> None:
    found, environment = fingerprint(*setting), {}
    for name in setting:
        environment |= SETTINGS[name]
    assert found["portable"] == fingerprint()["portable"]
    assert found["selftest"] == "identical"
    if "OMP_NUM_THREADS" in environment:
        assert found["threads"] == int(environment["OMP_NUM_THREADS"])
    if "ATEN_CPU_CAPABILITY" in environment:
        assert found["cpu_capability"].lower() == environment["ATEN_CPU_CAPABILITY"]


def test_the_settings_can_be_seen() -> None:
    """The native engine, which promises less, differs: so these settings do move bits."""
    assert fingerprint()["native"] != fingerprint(*SETTINGS)["native"]
