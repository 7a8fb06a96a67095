"""Canonical results have the same bits, whatever the process is told about its processor."""

import functools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("bits.py")

# Names of both older and newer versions: those that a version does not know, it ignores.
NO_FMA = "glibc.cpu.hwcaps=" + ",".join(
    f"-{name}{suffix}" for name in ("FMA", "AVX2", "FMA4") for suffix in ("", "_Usable")
)
NO_VECTORS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX"
PLAIN = {"OMP_NUM_THREADS": "2", "MKL_DYNAMIC": "FALSE", "PYTHONHASHSEED": "0"}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "no fused multiply-add": {"GLIBC_TUNABLES": NO_FMA},
    "no vector units": {
        "NPY_DISABLE_CPU_FEATURES": NO_VECTORS,
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "OMP_NUM_THREADS": "1",
    },
    "another culture": {
        "OMP_NUM_THREADS": "3",
        "PYTHONHASHSEED": "12345",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
    },
    "no assertions": {"PYTHONOPTIMIZE": "1"},
}
DTYPES = {f"{name} by default": name for name in ("float64", "float16")}
MOVES = {
    "no fused multiply-add": ["pow"],
    "no vector units": ["exp", "sum"],
    "another culture": ["order of a set"],
    "no assertions": ["assertions"],
    "float64 by default": ["default dtype"],
    "float16 by default": ["default dtype"],
}
"""Controls that prove that a setting has reached the process."""
SINGLE = [(setting,) for setting in MOVES]
EVERYTHING = (
    "another culture",
    "no fused multiply-add",
    "no vector units",
    "no assertions",
    "float64 by default",
)
"""Of two settings that say something of the same thing, the later one holds."""


@functools.cache
def bits(*settings: str) -> dict[str, dict[str, str]]:
    """What the script prints in a process of its own."""
    changed = {k for values in ENVIRONMENTS.values() for k in values}
    environment = {k: v for k, v in os.environ.items() if k not in changed} | PLAIN
    # Served models leave their own code on the path.
    environment["PYTHONPATH"] = str(SCRIPT.parents[1] / "src")
    arguments = []
    for setting in settings:
        environment |= ENVIRONMENTS.get(setting, {})
        arguments += [f"--default-dtype={DTYPES[setting]}"] if setting in DTYPES else []
    found = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), *arguments],
        env=environment | {"OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])  # a study says what it writes


@pytest.mark.parametrize(
    "settings",
    [EVERYTHING, *(pytest.param(single, marks=pytest.mark.ci) for single in SINGLE)],
    ids=" and ".join,
)
def test_canonical_results_have_one_digest(settings: tuple[str, ...]) -> None:
    found, plain = bits(*settings), bits()
    assert len(plain["canonical"]) > 1
    assert found["canonical"] == plain["canonical"]
    moved = {control for setting in settings for control in MOVES[setting]}
    if not has_fma():
        moved -= {"pow", "exp"}
    assert moved <= {name for name in moved if found["controls"][name] != plain["controls"][name]}


def has_fma() -> bool:
    """Whether this is glibc, which can be told not to use it, on a processor that has it."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc" and "fma" in flags
