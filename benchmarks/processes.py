"""One training in several processes: the same bits, and what the processes tell each other.

Trains every variant of params.yaml for an epoch on the prepared images, in 1, 2, 3, 4, 5 and 8
processes on this machine, and compares it with the first of the committed history. Counts the
all-reduces of a step, the bytes that each process gives to them, and how long the first process
waits for them, and so for slower ones. Prints a table and writes
``benchmarks/results/processes.json``; the exit code is 1 if a bit differs. With an argument, the
file to write, it is one of the processes.
"""

import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch import distributed as dist

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.studies import classifiers
from refashion.training import loop, workers
from refashion.training.engine import Examples, batches
from refashion.training.workers import Workers

SIZES = (1, 2, 3, 4, 5, 8)
WORKSPACE = Workspace.here()
RESULT = Path(__file__).resolve().parent / "results" / "processes.json"


def measure(name: str, group: Workers) -> dict[str, Any]:
    """Train one variant for an epoch: whether it is as committed, and what a step takes."""
    settings = replace(classifiers.settings(WORKSPACE.params(), name), epochs=1)
    splits = [prepared.load(part) for part in (WORKSPACE.train, WORKSPACE.validation)]
    train, validation = (Examples.of_images(s.images, s.labels) for s in splits)
    model = loop.Model(settings=settings, train=train, validation=validation)
    steps = len(batches(len(train), settings.batch_size))
    reduces: list[tuple[int, float]] = []
    all_reduce = dist.all_reduce

    def counted(x: Tensor, operation: Any) -> None:
        began = time.perf_counter()
        all_reduce(x, operation)
        reduces.append((x.nbytes, time.perf_counter() - began))

    with mock.patch.object(dist, "all_reduce", counted):
        began = time.perf_counter()
        ((row, _),) = loop.train([model], device="cpu", workers=group)
        seconds = time.perf_counter() - began
    with (WORKSPACE.models / name / "history.csv").open() as file:
        committed = next(csv.DictReader(file))
    of_steps = reduces[:-2]  # the last two gather the terms of the losses
    return {
        "identical": {key: str(getattr(row, key)) for key in committed} == committed,
        "weights_sha256": row.weights_sha256,
        "all_reduces": len(of_steps) / steps,
        "bytes": sum(nbytes for nbytes, _ in of_steps) / steps,
        "wait_ms": 1000 * sum(wait for _, wait in of_steps) / steps,
        "step_ms": 1000 * seconds / steps,
    }


def work(output: str) -> None:
    """Measure as one of the processes; the first writes."""
    with workers.joined("cpu") as group:
        variants = WORKSPACE.params().variants
        results = {name: measure(name, group) for name in variants}
        if not group.rank:
            files.write_json(Path(output), results)


def main() -> int:
    """Measure all numbers of processes, print and write; the exit code."""
    table = Table(
        title="One training in several processes",
        caption=f"weights after an epoch; the rest of a step, on {os.cpu_count()} processors",
    )
    for title in ("variant", "processes", "weights", "identical", "all-reduces"):
        table.add_column(title)
    for title in ("kB", "ms waiting", "ms per step"):
        table.add_column(title, justify="right")
    output = WORKSPACE.root / "build" / "processes.json"
    results: dict[str, dict[str, Any]] = {}
    for size in SIZES:
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*launcher, __file__, str(output)], env=environment, check=True)
        results[str(size)] = json.loads(output.read_text())
    for name in results["1"]:
        for size, of_size in results.items():
            row = of_size[name]
            table.add_row(
                *(name, size, row["weights_sha256"][:12], "yes" if row["identical"] else "NO"),
                *(f"{row['all_reduces']:.0f}", f"{row['bytes'] / 1000:.1f}"),
                *(f"{row['wait_ms']:.2f}", f"{row['step_ms']:.2f}"),
            )
    Console(width=100).print(table)
    files.write_json(RESULT, results)
    rows = [row for of_size in results.values() for row in of_size.values()]
    return not all(row["identical"] for row in rows)


if __name__ == "__main__":
    sys.exit(work(sys.argv[1]) if sys.argv[1:] else main())
