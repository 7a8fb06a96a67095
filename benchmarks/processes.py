"""One training in several processes: the same bits, and what the processes tell each other.

`rows` trains every variant of params.yaml for an epoch on the prepared images, in 1, 2, 3, 4, 5 and
8 processes on this machine, and compares it with the first of the committed history. It counts the
all-reduces of a step, the bytes that each process gives to them, and how long the first process
waits for them, and so for slower ones. With an argument, the file to write, this is one of the
processes.
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
    assert {key: str(getattr(row, key)) for key in committed} == committed, "the bits differ"
    of_steps = reduces[:-2]  # the last two gather the terms of the losses
    return {
        "variant": name,
        "processes": group.size,
        "weights_sha256": row.weights_sha256,
        "all_reduces": len(of_steps) / steps,
        "kb": sum(nbytes for nbytes, _ in of_steps) / steps / 1000,
        "ms_waiting": 1000 * sum(wait for _, wait in of_steps) / steps,
        "ms_per_step": 1000 * seconds / steps,
    }


def work(output: str) -> None:
    """Measure as one of the processes; the first writes."""
    with workers.joined("cpu") as group:
        results = [measure(name, group) for name in WORKSPACE.params().variants]
        if not group.rank:
            files.write_json(Path(output), results)


def rows() -> list[dict[str, Any]]:
    """All variants in all numbers of processes, variant by variant."""
    output = WORKSPACE.root / "build" / "processes.json"
    results: list[dict[str, Any]] = []
    for size in SIZES:
        launcher = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={size}"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*launcher, __file__, str(output)], env=environment, check=True)
        results += json.loads(output.read_text())
        print(f"{size} processes: done", file=sys.stderr)
    return sorted(results, key=lambda row: str(row["variant"]))


if __name__ == "__main__":
    work(sys.argv[1])
