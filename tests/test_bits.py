"""Results have the same bits, whatever a process is told about its processor and libraries."""

import functools
import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parent

# --- trainings --------------------------------------------------------------------------------

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
"""Environment variables; all at once they are three threads without vector units."""


@functools.cache
def fingerprint(*settings: str) -> dict[str, Any]:
    """Hash of portable and of native trainings."""
    return printed("fingerprint.py", merged(SETTINGS, settings))


@pytest.mark.parametrize(
    "settings",
    [tuple(SETTINGS), *(pytest.param((name,), marks=pytest.mark.ci) for name in SETTINGS)],
    ids=" and ".join,
)
def test_the_portable_engine_has_one_hash(settings: tuple[str, ...]) -> None:
    result, environment = fingerprint(*settings), merged(SETTINGS, settings)
    assert result["portable"] == fingerprint()["portable"]
    assert result["selftest"] == "identical"
    if "OMP_NUM_THREADS" in environment:
        assert result["threads"] == int(environment["OMP_NUM_THREADS"])
    if "ATEN_CPU_CAPABILITY" in environment:
        assert result["cpu_capability"].lower() == environment["ATEN_CPU_CAPABILITY"]


def test_the_settings_move_the_bits_of_the_native_engine() -> None:
    assert fingerprint()["native"] != fingerprint(*SETTINGS)["native"]


# --- canonical results ------------------------------------------------------------------------

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
EVERYTHING = (
    "another culture",
    "no fused multiply-add",
    "no vector units",
    "no assertions",
    "float64 by default",
)
"""The last one that sets a variable decides it."""


@functools.cache
def bits(*settings: str) -> dict[str, dict[str, str]]:
    """Digests of canonical results, and of the controls."""
    arguments = [f"--default-dtype={DTYPES[name]}" for name in settings if name in DTYPES]
    return printed("bits.py", PLAIN | merged(ENVIRONMENTS, settings), *arguments)


@pytest.mark.parametrize(
    "settings",
    [EVERYTHING, *(pytest.param((name,), marks=pytest.mark.ci) for name in MOVES)],
    ids=" and ".join,
)
def test_canonical_results_have_one_digest(settings: tuple[str, ...]) -> None:
    result, plain = bits(*settings), bits()
    assert len(plain["canonical"]) > 1
    assert result["canonical"] == plain["canonical"]
    moved = {control for setting in settings for control in MOVES[setting]}
    if not has_fma():
        moved -= {"pow", "exp"}
    assert not {name for name in moved if result["controls"][name] == plain["controls"][name]}


def has_fma() -> bool:
    """Whether this is glibc, which can be told not to use it, on a processor that has it."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc" and "fma" in flags


# --- processes --------------------------------------------------------------------------------


def merged(settings: dict[str, dict[str, str]], names: tuple[str, ...]) -> dict[str, str]:
    """Environment variables of several settings; the last one that sets a variable decides it."""
    return {k: v for name in names for k, v in settings.get(name, {}).items()}


def printed(script: str, variables: dict[str, str], *arguments: str) -> Any:
    """JSON that a script prints in another folder, under no settings but `variables`."""
    changed = set(itertools.chain(*SETTINGS.values(), *ENVIRONMENTS.values()))
    environment = {k: v for k, v in os.environ.items() if k not in changed}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"  # more threads than processors: let none spin
    # Served models leave their own code on the path.
    environment["PYTHONPATH"] = str(TESTS.parent / "src")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(TESTS / script), *arguments],
        env=environment | variables,
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
