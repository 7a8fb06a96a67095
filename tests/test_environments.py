"""One hash, whatever the process is told about threads, vector units and libraries."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fingerprint.py")
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads": {"OMP_NUM_THREADS": "2"},
    "three threads": {"OMP_NUM_THREADS": "3", "MKL_DYNAMIC": "FALSE"},  # on two processors too
    "no vector units": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "MKL compatible": {"MKL_CBWR": "COMPATIBLE"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "no FMA in glibc": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-FMA4"},
    "other hash seed": {"PYTHONHASHSEED": "12345"},
}
SWITCHES = {name for environment in SETTINGS.values() for name in environment}


def fingerprint(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """What the script prints in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    clean["OMP_WAIT_POLICY"] = "PASSIVE"  # more threads than processors: let none of them spin
    found = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=clean | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout)


@pytest.fixture(scope="module")
def fingerprints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """All settings' fingerprints, each from a folder of its own; two processes at a time."""
    folders = [tmp_path_factory.mktemp("elsewhere") for _ in SETTINGS]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(fingerprint, SETTINGS.values(), folders)
    return dict(zip(SETTINGS, found, strict=True))


def test_the_portable_engine_has_one_hash(fingerprints: dict[str, dict[str, str]]) -> None:
    hashes = {setting: found["portable"] for setting, found in fingerprints.items()}
    assert set(hashes.values()) == {hashes["as it is"]}, hashes


def test_the_settings_reach_the_processes(fingerprints: dict[str, dict[str, str]]) -> None:
    names = ("one thread", "two threads", "three threads")
    assert [fingerprints[name]["threads"] for name in names] == [1, 2, 3]
    assert fingerprints["no vector units"]["cpu_capability"] in ("DEFAULT", "default")


def test_the_matrix_can_see(fingerprints: dict[str, dict[str, str]]) -> None:
    """The native engine, which promises less, differs: so these settings do move bits."""
    assert len({found["native"] for found in fingerprints.values()}) > 1
