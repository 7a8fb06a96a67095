"""Record which machines, settings and versions give which hash: ``results/machines.json``.

Runs ``tests/fingerprint.py`` under the settings of ``tests/test_environments.py``, then with other
interpreters and on emulated processors where they are named:

    python benchmarks/machines.py --python OTHER/bin/python --emulate Haswell SandyBridge
    --emulate-arm64 cortex-a72 max,sve-max-vq=2
"""

import argparse
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
RESULTS = ROOT / "benchmarks" / "results" / "machines.json"


def fingerprint(setting: str, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """What one process computes, and where it ran."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    output = subprocess.run(
        [*command, str(TESTS / "fingerprint.py")], env=environment, capture_output=True, check=True
    ).stdout
    found = {"setting": setting, **json.loads(output)}
    print(
        f"{setting:<26} torch {found['torch']:<14} {found['selftest']:<10} {found['portable'][:16]}"
    )
    return found


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", nargs="*", default=[], help="interpreters with another torch")
    parser.add_argument("--emulate", nargs="*", default=[], help="processors for qemu-x86_64 -cpu")
    parser.add_argument(
        "--emulate-arm64", nargs="*", default=[], help="processors for qemu-aarch64 -cpu"
    )
    arguments = parser.parse_args()
    matrix = runpy.run_path(str(TESTS / "test_environments.py"))["SETTINGS"]
    here = [sys.executable]
    found = [fingerprint(name, here, environment) for name, environment in matrix.items()]
    found += [fingerprint("another torch", [python], {}) for python in arguments.python]
    found += [
        fingerprint(f"emulated {cpu}", ["qemu-x86_64", "-cpu", cpu, *here], {})
        for cpu in arguments.emulate
    ]
    if arguments.emulate_arm64:
        build = [str(TESTS / "emulated" / "arm64.sh")]
        arm64 = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        found += [
            fingerprint(f"emulated {cpu}", [arm64], {"QEMU_CPU": cpu})
            for cpu in arguments.emulate_arm64
        ]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    hashes = {row["portable"] for row in found}
    sys.exit(len(hashes) > 1 or any(row["selftest"] != "identical" for row in found))


if __name__ == "__main__":
    main()
