"""How far it goes past one training on one machine: ``python benchmarks/scale.py [SECTION...]``.

Needs ``make repro`` to have run in this workspace.

stacks
    Models that are trained side by side, against the same models one after the other: learning
    rates, which share batches, and seeds, which do not. Seconds and peak memory of one epoch and of
    a validation, each in a process of its own, in turns.
sweeps
    The same 24 learning rates of the MLP by ``refashion sweep`` in one process and in two, by
    Optuna with a plain loop of PyTorch, and by DVC's queue with two workers: trials a minute.
processes
    One training in 1 to 8 processes: a step's time, and what it sends (`processes`).
images
    A training set of 60,000 images, and of 10 and 100 times as many: an epoch's time, and memory
    (`scale_data`).

Prints tables, and writes ``benchmarks/results/scale.json`` and a picture of it.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from refashion.base import files
from refashion.base.workspace import Workspace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Workspace.here()
RESULTS = Path(__file__).parent / "results"
FOLDER = HERE.root / "build" / "scale"
COUNTS = (4, 16)
ROUNDS = 3
EPOCHS = 2
VARIANTS = ("softmax", "mlp", "dropout")
TRIALS = 24
RATES = [round(0.01 * 100 ** (i / (TRIALS - 1)), 4) for i in range(TRIALS)]
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
}

Row = dict[str, Any]


def of_process(*arguments: str) -> Row:
    """What this script prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout)


def stack(variant: str, swept: str, count: int, alone: bool) -> Row:
    """Train models side by side, or one after the other."""
    from contenders import settings

    from refashion.data import prepared
    from refashion.training import loop
    from refashion.training.engine import Examples

    train, validation = (
        Examples.of_images(split.images, split.labels)
        for split in map(prepared.load, (HERE.train, HERE.validation))
    )
    base = settings(variant, "portable", epochs=EPOCHS)
    values = RATES if swept == "lr" else range(TRIALS)
    models = [
        loop.Model(settings=replace(base, **{swept: value}), train=train, validation=validation)
        for value in values[:count]
    ]
    stacks = [[model] for model in models] if alone else [models]
    digests, seconds = [], 0.0
    for one in stacks:
        rows = loop.train(one, device="cpu")
        first = [next(rows) for _ in one]  # products are tried, and memory is laid out
        started = time.perf_counter()
        digests += [row.weights_sha256 for row, _ in rows]
        seconds += time.perf_counter() - started
        assert len(first) == len(one)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {"seconds": seconds, "peak_mib": peak, "digests": digests}


def stacks() -> list[Row]:
    """Stacks against single trainings, in turns."""
    rows = []
    for variant in VARIANTS:
        for swept in ("lr", "seed"):
            for count in COUNTS:
                taken: dict[str, list[Row]] = {"together": [], "alone": []}
                for _ in range(ROUNDS):
                    for way, results in taken.items():
                        results.append(of_process("--stack", variant, swept, str(count), way))
                digests = {json.dumps(r["digests"]) for results in taken.values() for r in results}
                assert len(digests) == 1, "the bits differ"
                row = {"variant": variant, "swept": swept, "models": count}
                for way, results in taken.items():
                    row[f"seconds_{way}"] = median(r["seconds"] for r in results)
                    row[f"peak_mib_{way}"] = median(r["peak_mib"] for r in results)
                rows.append({**row, "ratio": row["seconds_alone"] / row["seconds_together"]})
                print(rows[-1], file=sys.stderr)
    return rows


def run(*command: str, folder: Path, **environment: str) -> float:
    """Seconds that a command takes."""
    started = time.perf_counter()
    with (FOLDER / "log.txt").open("a") as log:
        output = {"stdout": log, "stderr": log}
        subprocess.run(command, cwd=folder, env=ENVIRONMENT | environment, check=True, **output)
    return time.perf_counter() - started


def clone(name: str) -> Path:
    """A fresh clone on this workspace's cache, with all results of the pipeline."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    run("git", "clone", "--quiet", str(HERE.root), str(folder), folder=FOLDER)
    cache = str(HERE.root / ".dvc" / "cache")
    run("dvc", "config", "--local", "cache.dir", cache, folder=folder)
    run("dvc", "checkout", "--quiet", folder=folder)
    return folder


def by_sweep(name: str, processes: int) -> float:
    """Minutes of ``refashion sweep``, from the command to the last run in MLflow."""
    folder = clone(name)
    rates = f"lr={','.join(map(str, RATES))}"
    command = ("refashion", "sweep", "mlp", "-S", rates, "--processes", str(processes))
    return run(*command, folder=folder, PYTHONPATH=str(folder / "src")) / 60


def by_queue() -> float:
    """Minutes of DVC's queue, two experiments at a time."""
    folder = clone("queue")
    rates = f"variants.mlp.lr={','.join(map(str, RATES))}"
    started = time.perf_counter()
    run("dvc", "exp", "run", "--queue", "-S", rates, "track@mlp", folder=folder)
    run("dvc", "queue", "start", "-j", "2", folder=folder)
    status = ("dvc", "queue", "status")
    while True:
        time.sleep(2)
        told = subprocess.run(
            status, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
        ).stdout
        assert "Failed" not in told, told
        if told.count("Success") == TRIALS:
            return (time.perf_counter() - started) / 60


def optuna_with_a_plain_loop() -> Row:
    """Train every learning rate as a careful user of PyTorch does, all images in memory."""
    started = time.perf_counter()
    import numpy as np
    import optuna
    import torch
    from networks import BATCH_SIZE, sequential
    from torch.nn.functional import cross_entropy

    def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        names = ("images.npy", "labels.npy")
        images, labels = (torch.from_numpy(np.load(folder / name)) for name in names)
        return images.float() / 255, labels.long()

    (x, y), (validation_x, validation_y) = read(HERE.train), read(HERE.validation)

    def objective(trial: optuna.Trial) -> float:
        torch.manual_seed(0)
        net = sequential("mlp")
        optimizer = torch.optim.SGD(net.parameters(), lr=trial.suggest_categorical("lr", RATES))
        accuracy = torch.zeros(())
        for _ in range(HERE.params().epochs):
            for rows in torch.randperm(len(x)).split(BATCH_SIZE):
                optimizer.zero_grad()
                cross_entropy(net(x[rows]), y[rows]).backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = (net(validation_x).argmax(1) == validation_y).float().mean()
        return accuracy.item()

    sampler = optuna.samplers.GridSampler({"lr": RATES})
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=TRIALS)
    return {"minutes": (time.perf_counter() - started) / 60}


def sweeps() -> list[Row]:
    """The same trials by all contenders, one after the other; once, for they take minutes."""
    contenders: dict[str, Callable[[], float]] = {
        "refashion sweep, one process": lambda: by_sweep("one", 1),
        "refashion sweep, two processes": lambda: by_sweep("two", 2),
        "Optuna with a plain loop": lambda: of_process("--optuna")["minutes"],
        "DVC's queue, two workers": by_queue,
    }
    rows = []
    for name, contender in contenders.items():
        minutes = contender()
        rows.append({"contender": name, "minutes": minutes, "trials_per_minute": TRIALS / minutes})
        print(rows[-1], file=sys.stderr)
    one, two = (
        (FOLDER / name).glob("reports/studies/mlp-*/mlp/trials.csv") for name in ("one", "two")
    )
    assert next(one).read_bytes() == next(two).read_bytes(), "the tables differ"
    return rows


SECTIONS: dict[str, Callable[[], list[Row]]] = {
    "stacks": stacks,
    "sweeps": sweeps,
    # Imported when they begin, for contenders' imports are measured.
    "processes": lambda: import_module("processes").rows(),
    "images": lambda: import_module("scale_data").rows(),
}

PANELS = (  # section, x, and above each other two y with their labels
    ("stacks", "models", "models in a stack", "ratio", "times as fast as one by one"),
    ("processes", "processes", "processes", "ms_per_step", "ms for a step"),
    ("images", "images", "images on disk", "us_per_image", "µs for an image"),
    ("stacks", "models", "models in a stack", "peak_mib_together", "peak memory (MiB)"),
    ("processes", "processes", "processes", "kb", "kB that each sends in a step"),
    ("images", "images", "images on disk", "peak_mib", "memory, pages of files aside (MiB)"),
)


def picture(measured: dict[str, list[Row]]) -> "Figure":
    """Time, and memory or messages, against models, processes and images: a line for each kind."""
    from refashion.pictures.figures import COLOURS, blank, plain

    figure = blank(11, 6, "Past one training on one machine")
    panels = figure.subplots(2, 3).flat
    for axes, (section, x, x_label, y, y_label) in zip(panels, PANELS, strict=True):
        lines: dict[tuple[str, ...], list[Row]] = {}
        for row in measured[section]:
            kind = tuple(row[key] for key in ("variant", "swept") if key in row)
            lines.setdefault(kind, []).append(row)
        for kind, of_kind in lines.items():
            style = {"color": COLOURS[VARIANTS.index(kind[0])], "label": ", ".join(kind)}
            dashes = "o--" if "seed" in kind else "o-"
            axes.plot([r[x] for r in of_kind], [r[y] for r in of_kind], dashes, **style)
        axes.set(xlabel=x_label, ylabel=y_label, xscale="log", ylim=(0, None))
        ticks = sorted({row[x] for row in measured[section]})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
        plain(axes)
    return figure


def main() -> None:
    """Measure the sections that are asked for, by default all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []])
    parser.add_argument("--stack", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--optuna", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.stack:
        variant, swept, count, way = asked.stack
        print(json.dumps(stack(variant, swept, int(count), way == "alone")))
        return
    if asked.optuna:
        print(json.dumps(optuna_with_a_plain_loop()))
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = RESULTS / "scale.json"
    measured = json.loads(file.read_text()) if file.exists() else {}
    for section in asked.sections or SECTIONS:
        measured[section] = rows = SECTIONS[section]()
        files.write_json(file, measured)
        table = Table(*rows[0], title=section)
        for row in rows:
            table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
        Console().print(table)
    if SECTIONS.keys() == measured.keys():
        from refashion.pictures.figures import png

        (RESULTS / "scale.png").write_bytes(png(picture(measured)))


if __name__ == "__main__":
    main()
