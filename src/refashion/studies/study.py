"""From settings and data to runs: the one way in which everything here is trained.

A study is data and a list of settings, and what it wants to know of each epoch. Each module beside
this one is a study. Its ``run(workspace, params)`` trains, writes the runs and gives its
`Headline`; its ``TITLE`` and ``NOTES`` introduce its page.
"""

import hashlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from statistics import stdev
from typing import Any

from refashion.base import files
from refashion.base.progress import Advance
from refashion.base.workspace import Workspace
from refashion.runs import listing, write
from refashion.runs.record import Record
from refashion.runs.write import Table
from refashion.training import device as devices
from refashion.training import loop
from refashion.training.initial import Weights
from refashion.training.loop import Model, Row, Training

Measures = Mapping[str, float]
"""Of one epoch, by name."""

Observe = Callable[[Row, Weights], Measures]
"""From an epoch and the weights after it to what the study wants to know."""

Headline = Mapping[str, Mapping[str, float]]
"""The one or two numbers by which experiments are compared: from a metric to runs to values."""

MEASURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weight_norm")


def measures(row: Row, weights: Weights) -> Measures:
    """All numbers of an epoch."""
    return {name: getattr(row, name) for name in MEASURES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """Trainings of one kind, which become one run."""

    trainings: Sequence[Training]
    rows: Sequence[Sequence[Measures]]
    """What was observed: of every training, by epoch."""
    contract: str
    """See `Record.contract`."""
    timings: Mapping[str, Any]
    """Volatile: seconds, memory, device and versions."""

    @property
    def digest(self) -> str:
        """Of the weights of all trainings."""
        digests = [training.digest for training in self.trainings]
        return digests[0] if len(digests) == 1 else _sha256("\n".join(digests))

    @property
    def mean_history(self) -> list[Measures]:
        """Means over the trainings, epoch by epoch."""
        return [
            {name: mean([row[name] for row in rows]) for name in rows[0]}
            for rows in zip(*self.rows, strict=True)
        ]

    @property
    def last_measures(self) -> dict[str, float]:
        """Means of the last epoch, and over several trainings the standard deviation too.

        The standard library's deviation (n - 1 in the denominator) is made of exact fractions and
        rounded once.
        """
        columns = {name: [rows[-1][name] for rows in self.rows] for name in self.rows[0][-1]}
        spread = {f"{name}_std": stdev(column) for name, column in columns.items() if column[1:]}
        return {name: mean(column) for name, column in columns.items()} | spread


def train(
    models: Sequence[Model], device: str, advance: Advance, observe: Observe = measures
) -> Trained:
    """Train models and observe every epoch of each.

    Parameters
    ----------
    models
        At least one; of one engine.
    device
        ``auto``, ``cpu`` or ``cuda``.
    advance
        Told of every epoch.
    observe
        What to keep of an epoch.

    Raises
    ------
    UserError
        If there is nothing to train on, or no such device.
    """
    rows: list[list[Measures]] = [[] for _ in models]
    seconds = [0.0] * max(model.settings.epochs for model in models)
    started = datetime.now(UTC).isoformat(timespec="seconds")

    def observed() -> Iterator[tuple[Row, Weights]]:
        for row, weights in _timed(loop.train(models, device=device), seconds):
            rows[row.model].append(observe(row, weights))
            advance(1, f"loss {row.train_loss:.3f}  accuracy {row.train_accuracy:.3f}")
            yield row, weights

    trainings = loop.collect(models, observed())
    place = devices.resolve(device)
    trained = zip(models, trainings, strict=True)
    examples = sum(len(model.train) * len(training.history) for model, training in trained)
    timings = {
        "started": started,
        "seconds": math.fsum(seconds),
        "seconds_per_epoch": [s for s in seconds if s],
        "images_per_second": examples / math.fsum(seconds) if examples else 0.0,
        "peak_memory_mib": _peak_memory_mib(),
        "device": place.type,
        "device_name": devices.describe(place),
        **devices.software(),
    }
    contract = loop.contract(models[0].settings, place)
    return Trained(trainings=trainings, rows=rows, contract=contract, timings=timings)


def together(parts: Sequence[Trained]) -> Trained:
    """Sum up trainings that were made one after another."""
    logs = [part.timings for part in parts]
    seconds = [
        math.fsum(epoch)
        for epoch in zip_longest(*(log["seconds_per_epoch"] for log in logs), fillvalue=0.0)
    ]
    examples = math.fsum(log["images_per_second"] * log["seconds"] for log in logs)
    total = math.fsum(seconds)
    timings = {
        **logs[0],
        "seconds": total,
        "seconds_per_epoch": seconds,
        "images_per_second": examples / total if total else 0.0,
    }
    return Trained(
        trainings=[training for part in parts for training in part.trainings],
        rows=[rows for part in parts for rows in part.rows],
        contract=parts[0].contract,
        timings=timings,
    )


def write_run(
    workspace: Workspace,
    study: str,
    name: str,
    trained: Trained,
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
    """Write one run of a study.

    Parameters
    ----------
    workspace
        Where to.
    study, name
        Of the study, and of the run in it.
    trained
        What the run consists of.
    data, inputs, params, tables
        See `Record` and `refashion.runs.write.write`.
    history, metrics
        By default means over the trainings, and those of the last epoch with their spread.
    parent
        The run of the study that sums this one up with others.
    stage
        Of the pipeline; by default that of the studies which ``dvc repro`` runs.
    """
    record = Record(
        name=f"{study}/{name}",
        experiment=study,
        stage=stage or f"study@{study}",
        folders=(workspace.relative(workspace.study_folder(study) / name),),
        contract=trained.contract,
        data=data,
        inputs=inputs,
        params=params,
        parent=f"{study}/{parent}" if parent else None,
    )
    write.write(
        workspace.root,
        record,
        trained.mean_history if history is None else history,
        digest=trained.digest,
        metrics=trained.last_measures if metrics is None else metrics,
        tables=tables,
        timings=trained.timings,
    )


def write_curves(workspace: Workspace, study: str) -> None:
    """Lay the histories of a study's runs one below the other, for DVC's plots."""
    runs = [run for run in listing.of_study(workspace, study) if run.record.parent is None]
    columns = list(dict.fromkeys(name for run in runs for row in run.rows for name in row))
    rows = [
        [run.name.partition("/")[2], *(row.get(column, "") for column in columns)]
        for run in runs
        for row in run.rows
    ]
    files.write_csv(workspace.study_folder(study) / "curves.csv", ["run", *columns], rows)


def mean(values: Sequence[float]) -> float:
    """Mean, of the sum rounded once."""
    return math.fsum(values) / len(values)


def _timed(
    rows: Iterator[tuple[Row, Weights]], seconds: list[float]
) -> Iterator[tuple[Row, Weights]]:
    """Pass on what `loop.train` yields, and add up the seconds that every epoch took."""
    while True:
        start = time.perf_counter()
        item = next(rows, None)
        if item is None:
            return
        seconds[item[0].epoch - 1] += time.perf_counter() - start
        yield item


def _peak_memory_mib() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
