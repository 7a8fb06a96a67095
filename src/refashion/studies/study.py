"""Training of models for a run, and writing the runs of a study.

Each module beside this one is a study, except for the classifiers. Its ``run(workspace, params)``
trains, writes the runs and gives the `Headline`; its ``TITLE`` and ``NOTES`` introduce its page.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.progress import Advance, progress
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.prepared import Split
from refashion.runs import listing, write
from refashion.runs.checkpoint import Checkpoint
from refashion.runs.record import Record
from refashion.runs.run import write_together
from refashion.runs.write import Table
from refashion.training import device as devices
from refashion.training import loop
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Model, Row, State, Training
from refashion.training.settings import Settings
from refashion.training.workers import ALONE, Workers

Measures = Mapping[str, float]
"""Numbers of one epoch, by name."""

Observe = Callable[[Row, Weights], Measures]
"""From an epoch and the weights after it to the numbers that a study keeps."""

Headline = Mapping[str, Mapping[str, float]]
"""The one or two numbers by which experiments are compared: values by metric and run."""

MEASURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weight_norm")


def measures(row: Row, weights: Weights) -> Measures:
    """All numbers of an epoch."""
    return {name: getattr(row, name) for name in MEASURES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A trained model, which becomes a run, alone or with others."""

    training: Training
    rows: Sequence[Measures]
    """What was observed, epoch by epoch."""
    contract: str
    """See `Record.contract`."""
    seconds: Sequence[float]
    """That every epoch took: an even share of the time of all that were trained together."""
    num_examples: int
    """Examples that were learnt from, counted anew in every epoch."""
    machine: Mapping[str, Any]
    """When training started; memory, device and versions."""


PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = ("data", "portable", "training")
"""Those whose code, with this file's, makes what a checkpoint holds."""


def key(
    name: str, settings: Settings, device: str, *, inputs: Mapping[str, str], **params: Any
) -> str:
    """SHA-256 (hexadecimal) of what makes a training, so that its state can be used again.

    It is what determines a run (its name, settings, further `params`, and the digests of its
    inputs), the code and, with native numerics, the machine and its software.
    """
    place = devices.resolve(device)
    native = settings.numerics == "native"
    makes = {
        "run": (name, loop.contract(settings, place), settings.as_dict(), params, dict(inputs)),
        "code": code(),
        "machine": (devices.software(), devices.describe(place)) if native else None,
    }
    return sha256(json.dumps(makes, sort_keys=True).encode()).hexdigest()


@cache
def code() -> list[str]:
    """Digests of the files whose code trains: those of `ROOMS`, and this one."""
    sources = [file for room in ROOMS for file in sorted((PACKAGE / room).rglob("*.py"))]
    return [files.sha256(file) for file in (*sources, Path(__file__))]


def checkpoint(
    workspace: Workspace, *name: Any, workers: Workers = ALONE, **params: Any
) -> Checkpoint:
    """The checkpoint of the trainings of a run, to be entered before them.

    The first of the workers writes it. Other arguments are those of `key`.
    """
    return Checkpoint(workspace.checkpoints, key(*name, **params), writes=not workers.rank)


def train(
    name: str,
    models: Sequence[Model],
    device: str,
    observe: Observe = measures,
    *,
    may_diverge: bool = False,
    advance: Advance | None = None,
    checkpoint: Checkpoint | None = None,
    workers: Workers = ALONE,
) -> list[Trained]:
    """Train models of one engine for the run `name`, and observe every epoch of each.

    Every epoch is told to `advance`, by default a bar of its own. With a checkpoint the training
    goes on from it, if it is sound, and keeps it up to date.

    Raises as `refashion.training.loop.train`, and `UserError` if one diverges that must not.
    """
    state = State.start(models)
    observed: dict[str, Any] = {
        "rows": [[] for _ in models],
        "seconds": [0.0] * max(model.settings.epochs for model in models),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    former = checkpoint.load(state) if checkpoint else None
    try:
        last = [[row.weights_sha256 for row in t.history[-1:]] for t in state.trainings]
        workers.agree({"checkpoint": (state.epoch, last)})
    except UserError:  # on other machines, some do not see it
        state, former = State.start(models), None
    if checkpoint and former:
        observed = former
        if not workers.rank:
            where = f"after epoch {state.epoch}, from {checkpoint.file}"
            print(f"{name}: goes on {where}", file=sys.stderr)
    rows, seconds = observed["rows"], observed["seconds"]

    def save(state: State) -> None:
        if checkpoint:
            checkpoint.save(state, observed)

    total = sum(model.settings.epochs for model in models)
    done = sum(len(training.history) for training in state.trainings)
    bar = progress(name, total, "epochs", done, shown=not workers.rank)
    with nullcontext(advance) if advance else bar as told:
        begin = time.perf_counter()
        for row, weights in loop.train(
            models, device=device, state=state, save=save, workers=workers
        ):
            seconds[row.epoch - 1] += (time.perf_counter() - begin) / len(models)
            rows[row.model].append(observe(row, weights))
            accuracy = row.train_accuracy  # NaN without classes
            known = "" if math.isnan(accuracy) else f"  accuracy {accuracy:.3f}"
            told(1, f"loss {row.train_loss:.3f}{known}")
            begin = time.perf_counter()
    trainings = state.trainings
    if not may_diverge:
        loop.refuse_divergence(name, trainings)
    place = devices.resolve(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    machine = {
        "started": observed["started"],
        "peak_memory_mib": peak / (2**20 if sys.platform == "darwin" else 2**10),
        "device": place.type,
        "device_name": devices.describe(place),
        **devices.software(),
    }
    return [
        Trained(
            training=training,
            rows=rows[i],
            contract=loop.contract(training.settings, place),
            seconds=seconds[: len(training.history)],
            num_examples=len(models[i].train) * len(training.history),
            machine=machine,
        )
        for i, training in enumerate(trainings)
    ]


def mean_history(trained: Sequence[Trained]) -> list[Measures]:
    """Means over the trainings, epoch by epoch."""
    return [
        {name: fmean([row[name] for row in rows]) for name in rows[0]}
        for rows in zip(*(t.rows for t in trained), strict=True)
    ]


def last_measures(trained: Sequence[Trained]) -> dict[str, float]:
    """Means of the last epoch, and over several trainings the standard deviation too.

    The standard library's mean is of a sum rounded once; its deviation (n - 1 in the denominator)
    is made of exact fractions and rounded once.
    """
    columns = {name: [t.rows[-1][name] for t in trained] for name in trained[0].rows[-1]}
    spread = {f"{name}_std": stdev(column) for name, column in columns.items() if column[1:]}
    return {name: fmean(column) for name, column in columns.items()} | spread


def timings(trained: Sequence[Trained]) -> dict[str, Any]:
    """Everything volatile, for the log."""
    epochs = zip_longest(*(t.seconds for t in trained), fillvalue=0.0)
    per_epoch = [math.fsum(seconds) for seconds in epochs]
    total = math.fsum(per_epoch)
    num_examples = sum(t.num_examples for t in trained)
    return {
        "seconds": total,
        "seconds_per_epoch": per_epoch,
        "images_per_second": num_examples / total if total else 0.0,
        **trained[0].machine,
    }


def splits(workspace: Workspace) -> tuple[dict[str, Split], dict[str, str]]:
    """The ``train`` and ``validation`` images with their labels, and the digests of both.

    `UserError` if they are missing or not sound.
    """
    folders = {"train": workspace.train, "validation": workspace.validation}
    loaded = {part: prepared.load(folder) for part, folder in folders.items()}
    return loaded, {part: prepared.digest(split) for part, split in loaded.items()}


def examples(splits: Mapping[str, Split]) -> dict[str, Examples]:
    """Splits as a training takes them."""
    return {part: Examples.of_images(s.images, s.labels) for part, s in splits.items()}


def write_run(
    workspace: Workspace,
    name: str,
    trained: Sequence[Trained],
    *,
    data: Mapping[str, Any],
    inputs: Mapping[str, str],
    params: Mapping[str, Any],
    history: Sequence[Measures] | None = None,
    metrics: Mapping[str, float] | None = None,
    tables: Mapping[str, Table] | None = None,
    parent: str | None = None,
    stage: str | None = None,
) -> None:
    """Write one run of a study; parameters as `Record` and `refashion.runs.write.write` have them.

    By default its history and metrics are `mean_history` and `last_measures`, and its stage that
    of a study which ``dvc repro`` runs. The digest of several models is that of their digests.
    """
    study = name.partition("/")[0]
    digests = [t.training.digest for t in trained]
    record = Record(
        name=name,
        experiment=study,
        stage=stage or f"study@{study}",
        folders=(workspace.relative(workspace.studies / name),),
        contract=trained[0].contract,
        data=data,
        inputs=inputs,
        params=params,
        parent=parent,
    )
    write.write(
        workspace,
        record,
        mean_history(trained) if history is None else history,
        digest=sha256("\n".join(digests).encode()).hexdigest() if digests[1:] else digests[0],
        metrics=last_measures(trained) if metrics is None else metrics,
        tables=tables,
        timings=timings(trained),
    )


def finish(workspace: Workspace, study: str, headline: Headline) -> None:
    """Write, and print, the numbers to compare experiments by, and a table for DVC's plots.

    It has the histories of all runs but those that another sums up.
    """
    runs = [run for run in listing.of_study(workspace, study) if run.record.parent is None]
    by_name = {run.name.partition("/")[2]: run for run in runs}
    write_together(workspace.study_folder(study) / "curves.csv", by_name, "history.csv")
    files.write_json(workspace.study_metrics(study), headline)
    for metric, values in headline.items():
        for run, value in values.items():
            print(f"{study}/{run}: {metric} {value:.4f}")
