"""Record which machines, settings and versions give which hash: ``results/machines.json``.

Runs ``tests/fingerprint.py`` under the settings of ``tests/test_bits.py``, then with other
interpreters and on emulated processors where they are named, once for each way of a product. What
was measured on other processors stays in the table:

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


WAYS = ("int8", "float64")
OTHERS = ("as it is", "one thread", "no vector units", "MKL compatible", "no FMA in glibc")
"""Settings that other interpreters are tried under."""


def fingerprint(
    setting: str, command: list[str], environment: dict[str, str], way: str
) -> dict[str, Any]:
    """Hashes that one process computes with one kind of products, and its machine."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")} | environment
    output = subprocess.run(
        [*command, str(TESTS / "fingerprint.py"), way],
        env=environment,
        capture_output=True,
        check=True,
    ).stdout
    row = {"setting": setting, "way": way, **json.loads(output)}
    print(
        f"{setting:<26} torch {row['torch']:<14} {way:<8} {row['selftest']:<10} "
        f"{row['portable'][:16]}",
        flush=True,
    )
    return row


def main() -> int:
    """Run everything and write the table; the exit code is 1 if there is more than one hash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", nargs="*", default=[], help="interpreters with another torch")
    parser.add_argument("--emulate", nargs="*", default=[], help="processors for qemu-x86_64 -cpu")
    parser.add_argument(
        "--emulate-arm64", nargs="*", default=[], help="processors for qemu-aarch64 -cpu"
    )
    arguments = parser.parse_args()
    matrix = {"as it is": {}, **runpy.run_path(str(TESTS / "test_bits.py"))["SETTINGS"]}
    here = [sys.executable]
    processes = [(name, here, environment) for name, environment in matrix.items()]
    processes += [(name, [python], matrix[name]) for python in arguments.python for name in OTHERS]
    processes += [
        (f"emulated {cpu}", ["qemu-x86_64", "-cpu", cpu, *here], {}) for cpu in arguments.emulate
    ]
    if arguments.emulate_arm64:
        build = [str(TESTS / "emulated" / "arm64.sh")]
        arm64 = subprocess.run(build, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        processes += [
            (f"emulated {cpu}", [arm64], {"QEMU_CPU": cpu}) for cpu in arguments.emulate_arm64
        ]
    known, rows = json.loads(RESULTS.read_text()), []
    for process in processes:
        for way in WAYS:
            rows.append(fingerprint(*process, way))
            known = [row for row in known if row["processor"] != rows[-1]["processor"]]
            RESULTS.write_text(json.dumps(known + rows, indent=2, sort_keys=True) + "\n")
    one_hash = len({row["portable"] for row in known + rows}) == 1
    return 0 if one_hash and all(row["selftest"] == "identical" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
