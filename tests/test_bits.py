"""Canonical results have the same bits, whatever the process is told about its processor."""

import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("bits.py")

# Names of both older and newer versions: those that a version does not know, it ignores.
NO_FMA = "glibc.cpu.hwcaps=" + ",".join(
    f"-{name}{suffix}" for name in ("FMA", "AVX2", "FMA4") for suffix in ("", "_Usable")
)
NO_VECTORS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX"
SETTINGS: dict[str, tuple[dict[str, str], list[str]]] = {
    "two threads": ({"OMP_NUM_THREADS": "2", "MKL_DYNAMIC": "FALSE"}, [str(SCRIPT)]),
    "no fused multiply-add": ({"GLIBC_TUNABLES": NO_FMA}, [str(SCRIPT)]),
    "no vector units": (
        {
            "NPY_DISABLE_CPU_FEATURES": NO_VECTORS,
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_CBWR": "COMPATIBLE",
            "OMP_NUM_THREADS": "1",
        },
        [str(SCRIPT)],
    ),
    "another culture": (
        {
            "OMP_NUM_THREADS": "3",
            "MKL_DYNAMIC": "FALSE",
            "PYTHONHASHSEED": "12345",
            "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
            "LC_ALL": "C",
        },
        [str(SCRIPT)],
    ),
    "no assertions": ({}, ["-O", str(SCRIPT)]),
    "float64 by default": ({}, [str(SCRIPT), "--default-dtype=float64"]),
    "float16 by default": ({}, [str(SCRIPT), "--default-dtype=float16"]),
}
SWITCHES = {name for environment, _ in SETTINGS.values() for name in environment}
MOVED = [
    ("no fused multiply-add", "pow"),
    ("no vector units", "exp"),
    ("no vector units", "sum"),
    ("another culture", "order of a set"),
    ("no assertions", "assertions"),
    ("float64 by default", "default dtype"),
    ("float16 by default", "default dtype"),
]
"""Settings, each with a control that proves that it has reached the process."""

Bits = dict[str, dict[str, str]]


def bits(setting: tuple[dict[str, str], list[str]]) -> Bits:
    """What the script prints in a process of its own."""
    environment, arguments = setting
    # Served models leave their own code on Python's path.
    dropped = {*SWITCHES, "PYTHONPATH"}
    clean = {name: value for name, value in os.environ.items() if name not in dropped}
    clean["OMP_WAIT_POLICY"] = "PASSIVE"
    found = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env=clean | {"PYTHONHASHSEED": "0"} | environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def found() -> dict[str, Bits]:
    """All settings' bits; two processes at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(SETTINGS, pool.map(bits, SETTINGS.values()), strict=True))


@pytest.mark.parametrize("setting", SETTINGS)
def test_canonical_results_have_one_digest(found: dict[str, Bits], setting: str) -> None:
    digests = found[setting]["canonical"]
    assert len(digests) > 1
    assert digests == {name: found["two threads"]["canonical"][name] for name in digests}


@pytest.mark.parametrize(("setting", "name"), MOVED)
def test_settings_move_what_is_not_canonical(
    found: dict[str, Bits], setting: str, name: str
) -> None:
    if name in ("pow", "exp") and not has_fma():
        pytest.skip("this processor has no fused multiply-add, or this library does not switch")
    assert found[setting]["controls"][name] != found["two threads"]["controls"][name]


def has_fma() -> bool:
    """Whether this is glibc on an x86-64 processor with fused multiply-add."""
    info = Path("/proc/cpuinfo")
    flags: Any = info.read_text(encoding="utf-8").split() if info.exists() else ()
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc" and "fma" in flags
