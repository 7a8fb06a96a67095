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

# Names of both older and newer versions: those that a version does not know, it ignores.
NO_FMA = "glibc.cpu.hwcaps=" + ",".join(
    f"-{name}{suffix}" for name in ("FMA", "AVX2", "FMA4") for suffix in ("", "_Usable")
)
NO_VECTORS = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR AVX2 FMA3 AVX512F AVX512_SKX"
SETTINGS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "three threads": {"OMP_NUM_THREADS": "3", "MKL_DYNAMIC": "FALSE"},  # on two processors too
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "no vector units": {"ATEN_CPU_CAPABILITY": "default", "NPY_DISABLE_CPU_FEATURES": NO_VECTORS},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no FMA in glibc": {"GLIBC_TUNABLES": NO_FMA},
    "other hash seed": {"PYTHONHASHSEED": "12345"},
    "another culture": {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
    "no assertions": {"PYTHONOPTIMIZE": "1"},
}
"""Environment variables."""

DTYPES = {f"{name} by default": name for name in ("float64", "float16")}
PLAIN = ("two threads",)
GROUPS = [
    (
        *("three threads", "no vector units", "MKL compatible", "no FMA in glibc"),
        *("other hash seed", "another culture", "no assertions", "float16 by default"),
    ),
    ("one thread", "AVX2", "oneDNN AVX2", "no FMA in glibc", "float64 by default"),
    ("three threads",),  # without MKL's compatible mode, which might hide what they do
]
"""Settings that one process has at once, none of which is about the same thing as another."""

MOVES = {
    "one thread": ["sum"],
    "no FMA in glibc": ["pow"],
    "no vector units": ["exp", "native"],
    "other hash seed": ["order of a set"],
    "another culture": ["encoding"],
    "no assertions": ["assertions"],
    **{name: ["default dtype"] for name in DTYPES},
}
"""Controls that prove that a setting has reached the process."""


def test_every_setting_is_tried() -> None:
    assert {*SETTINGS, *DTYPES} == set(PLAIN).union(*GROUPS)


@pytest.mark.parametrize(
    "settings",
    [GROUPS[0], *(pytest.param(group, marks=pytest.mark.ci) for group in GROUPS[1:])],
    ids=" and ".join,
)
def test_results_have_one_digest(settings: tuple[str, ...]) -> None:
    """Weights, logits, functions and streams of the portable engine, and all canonical results."""
    result, plain = printed(*settings), printed(*PLAIN)
    assert len(plain["canonical"]) > 1
    assert result["canonical"] == plain["canonical"]
    assert result["portable"] == plain["portable"]
    assert result["selftest"] == plain["selftest"] == "identical"
    variables = environment(*settings)
    assert result["threads"] == int(variables["OMP_NUM_THREADS"])
    if "ATEN_CPU_CAPABILITY" in variables:
        assert result["cpu_capability"].lower() == variables["ATEN_CPU_CAPABILITY"]
    moved = {control for setting in settings for control in MOVES.get(setting, ())}
    if not has_fma():
        moved -= {"pow", "exp"}
    new, old = (values | values["controls"] for values in (result, plain))
    assert not {name for name in moved if new[name] == old[name]}


def has_fma() -> bool:
    """Whether this is glibc, which can be told not to use it, on a processor that has it."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8").split() if info.exists() else []
    return platform.machine() == "x86_64" and platform.libc_ver()[0] == "glibc" and "fma" in flags


def environment(*settings: str) -> dict[str, str]:
    """Environment variables of some settings."""
    return {k: v for name in settings for k, v in SETTINGS.get(name, {}).items()}


@functools.cache
def printed(*settings: str) -> dict[str, Any]:
    """Digests and controls that a process prints in another folder, under these settings alone."""
    changed = set(itertools.chain(*SETTINGS.values()))
    variables = {k: v for k, v in os.environ.items() if k not in changed}
    variables["OMP_WAIT_POLICY"] = "PASSIVE"  # more threads than processors: let none spin
    variables["PYTHONHASHSEED"] = "0"
    # Served models leave their own code on the path.
    variables["PYTHONPATH"] = str(TESTS.parent / "src")
    dtypes = [f"--default-dtype={DTYPES[name]}" for name in settings if name in DTYPES]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(TESTS / "bits.py"), "--fingerprint", *dtypes],
        env=variables | environment(*settings),
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
