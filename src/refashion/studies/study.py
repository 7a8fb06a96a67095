"""Training of models for a run, and writing the runs of a study.

Each module beside this one is a study, except for the classifiers. Its ``run(workspace, params)``
trains, writes the runs and gives the `Headline`; its ``TITLE`` and ``NOTES`` introduce its page.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
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
    """Trainings of one kind, which become one run."""

    trainings: Sequence[Training]
    rows: Sequence[Sequence[Measures]]
    """What was observed of every training, epoch by epoch."""
    contract: str
    """See `Record.contract`."""
    seconds: Sequence[float] = ()
    """Seconds that every epoch took, over all trainings."""
    num_examples: int = 0
    """Examples that were learnt from, counted anew in every epoch."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    """When training started; memory, device and versions."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; of several trainings, that of their digests."""
        digests = [training.digest for training in self.trainings]
        return digests[0] if len(digests) == 1 else sha256("\n".join(digests).encode()).hexdigest()

    @property
    def timings(self) -> dict[str, Any]:
        """Everything volatile, for the log."""
        total = math.fsum(self.seconds)
        return {
            "seconds": total,
            "seconds_per_epoch": list(self.seconds),
            "images_per_second": self.num_examples / total if total else 0.0,
            **self.machine,
        }

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
    """Train models of one engine and observe every epoch of each.

    Parameters and errors are those of `refashion.training.loop.train`; `advance` is told of every
    epoch.
    """
    rows: list[list[Measures]] = [[] for _ in models]
    seconds = [0.0] * max(model.settings.epochs for model in models)
    started = datetime.now(UTC).isoformat(timespec="seconds")

    def observed() -> Iterator[tuple[Row, Weights]]:
        begin = time.perf_counter()
        for row, weights in loop.train(models, device=device):
            seconds[row.epoch - 1] += time.perf_counter() - begin
            rows[row.model].append(observe(row, weights))
            advance(1, f"loss {row.train_loss:.3f}  accuracy {row.train_accuracy:.3f}")
            yield row, weights
            begin = time.perf_counter()

    trainings = loop.collect(models, observed())
    place = devices.resolve(device)
    trained = zip(models, trainings, strict=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Trained(
        trainings=trainings,
        rows=rows,
        contract=loop.contract(models[0].settings, place),
        seconds=[s for s in seconds if s],
        num_examples=sum(len(model.train) * len(training.history) for model, training in trained),
        machine={
            "started": started,
            "peak_memory_mib": peak / (2**20 if sys.platform == "darwin" else 2**10),
            "device": place.type,
            "device_name": devices.describe(place),
            **devices.software(),
        },
    )


def sum_up(parts: Sequence[Trained]) -> Trained:
    """All trainings of `parts`, which were made one after another, as one."""
    epochs = zip_longest(*(part.seconds for part in parts), fillvalue=0.0)
    return Trained(
        trainings=[training for part in parts for training in part.trainings],
        rows=[rows for part in parts for rows in part.rows],
        contract=parts[0].contract,
        seconds=[math.fsum(epoch) for epoch in epochs],
        num_examples=sum(part.num_examples for part in parts),
        machine=parts[0].machine,
    )


def write_run(
    workspace: Workspace,
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
        The checkout to write to.
    name, data, inputs, params, parent
        See `Record`.
    trained
        The run's trainings.
    history, metrics
        By default means over the trainings, and those of the last epoch with their spread.
    tables
        See `refashion.runs.write.write`.
    stage
        By default that of the studies which ``dvc repro`` runs.
    """
    study = name.partition("/")[0]
    record = Record(
        name=name,
        experiment=study,
        stage=stage or f"study@{study}",
        folders=(workspace.relative(workspace.studies / name),),
        contract=trained.contract,
        data=data,
        inputs=inputs,
        params=params,
        parent=parent,
    )
    write.write(
        workspace,
        record,
        trained.mean_history if history is None else history,
        digest=trained.digest,
        metrics=trained.last_measures if metrics is None else metrics,
        tables=tables,
        timings=trained.timings,
    )


def write_curves(workspace: Workspace, study: str) -> None:
    """Write the histories of a study's runs as one table, for DVC's plots; not those of parts."""
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
