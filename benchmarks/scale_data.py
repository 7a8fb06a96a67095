"""Data past memory: how time and memory grow with the number of images on disk.

`rows` trains on made-up images, 60,000 of them and 10 and 100 times as many, in one process for
each number. They take turns, epoch by epoch, so that whatever else the machine does strikes them
all alike. No process may allocate more than `ROOM` above what importing takes: the operating
system refuses it (RLIMIT_DATA). What is mapped from a file does not count, and can be dropped.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from refashion.base.workspace import Workspace

HERE = Path(__file__).resolve().parent
FOLDER = Workspace.here().root / "build" / "bench" / "scale"
SIZES = (60_000, 600_000, 6_000_000)
VARIANTS = ("softmax", "mlp")
ROOM = 2**30
CHUNK = 100_000
FIRST = 8192
"""Images of the first pass, in which every kernel is tried."""


def rows(
    sizes: Sequence[int] = SIZES, variants: Sequence[str] = VARIANTS, rounds: int = 2
) -> list[dict[str, Any]]:
    """Train an epoch on so many images in turn, a smaller set more often, and measure each.

    Returns
    -------
    list of dict
        For every variant and size the images, MiB on disk, epochs, medians of seconds and of the
        process's own CPU seconds for an epoch, both per image in microseconds, their ratios to the
        smallest set's, and the most MiB of memory, without pages of files.
    """
    for size in sizes:
        make(FOLDER / str(size), size)
    found: list[dict[str, Any]] = []
    try:
        for variant in variants:
            samples = _epochs(variant, sizes, rounds)
            for size in sizes:
                seconds, cpu, peak = zip(*samples[size], strict=True)
                row = {
                    "variant": variant,
                    "images": size,
                    "mib_on_disk": size * 784 / 2**20,
                    "epochs": len(seconds),
                    "us_per_image": median(seconds) / size * 1e6,
                    "cpu_us_per_image": median(cpu) / size * 1e6,
                    "peak_mib": max(peak),
                }
                first = next((r for r in found if r["variant"] == variant), row)
                for kind in ("us_per_image", "cpu_us_per_image"):
                    row[f"{kind}_ratio"] = row[kind] / first[kind]
                found.append(row)
                print(row, file=sys.stderr)
    finally:
        shutil.rmtree(FOLDER)
    return found


def make(folder: Path, size: int) -> None:
    """Write a training split of random images, in which a row of pixels tells the class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(size)
    shape = (size, 784)
    pixels = np.lib.format.open_memmap(folder / "images.npy", "w+", np.uint8, shape)
    labels = (np.arange(size) % 10).astype(np.uint8)
    for first in range(0, size, CHUNK):
        chunk = pixels[first : first + CHUNK]
        chunk[:] = np.frombuffer(rng.bytes(chunk.size), np.uint8).reshape(chunk.shape) >> 1
        chunk[np.arange(784) // 78 == labels[first : first + CHUNK, None]] += 100
    pixels.flush()
    np.save(folder / "labels.npy", labels)


def _epochs(variant: str, sizes: Sequence[int], rounds: int) -> dict[int, list[list[float]]]:
    """Seconds, CPU seconds and peak MiB of every epoch, by size."""
    children = {
        size: subprocess.Popen(
            [sys.executable, HERE / "scale_data.py", variant, FOLDER / str(size)],
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for size in sizes
    }
    samples: dict[int, list[list[float]]] = {size: [] for size in sizes}
    turns = {size: round((max(sizes) / size) ** 0.5) for size in sizes}
    try:
        for _ in range(rounds):
            for size, child in children.items():
                for _ in range(turns[size]):
                    assert child.stdin and child.stdout
                    child.stdin.write("\n")
                    child.stdin.flush()
                    samples[size].append(json.loads(child.stdout.readline()))
    finally:
        for child in children.values():
            child.terminate()
            child.wait()
    return samples


def status(field: str) -> float:
    """A number of MiB from Linux's table of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 2**10


def serve(variant: str, folder: Path) -> None:
    """Train an epoch for every line on stdin, and answer with what it took."""
    from contenders import settings

    from refashion.data import prepared
    from refashion.training import loop
    from refashion.training.engine import Examples

    split = prepared.load(folder)
    examples = Examples.of_images(split.images, split.labels)
    chosen = settings(variant, "portable", epochs=10**6)
    nothing = examples[:0]
    next(loop.train([loop.Model(settings=chosen, train=examples[:FIRST], validation=nothing)]))
    room = int(status("VmData") * 2**20) + ROOM
    resource.setrlimit(resource.RLIMIT_DATA, (room, room))
    peak = 0.0

    def watch() -> None:
        nonlocal peak
        while True:
            peak = max(peak, status("RssAnon"))
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    epochs = loop.train([loop.Model(settings=chosen, train=examples, validation=nothing)])
    for _ in sys.stdin:
        begin = time.perf_counter(), time.process_time()
        next(epochs)
        taken = time.perf_counter() - begin[0], time.process_time() - begin[1]
        print(json.dumps([*taken, peak]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
