"""An arm of a study: trainings of one kind, over seeds or folds, and what a study leaves of them.

Arms are to a study what variants are to the classifiers: each has a record, a history and metrics.
"""

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from statistics import stdev
from typing import Any

from refashion.base import files, paths
from refashion.studies import history
from refashion.studies.history import Row
from refashion.training import digest, loop
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Epoch, Split, Training
from refashion.training.record import run_key
from refashion.training.settings import Settings

Observe = Callable[[int, Epoch, Weights], Row]
"""From a model's number, an epoch and the weights after it to what the study wants to know."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Arm:
    """What the trainings of one kind came to."""

    name: str
    params: Mapping[str, Any]
    """All that determined them, besides their data."""

    inputs: Mapping[str, str]
    """Digest of every set of examples, by name."""

    trainings: Sequence[Training]
    """At least one."""

    history: Sequence[Row]
    """One an epoch; measures that are no numbers are left out."""

    metrics: Mapping[str, float]
    """What the study asks for, by name."""

    outputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of results other than weights and history."""

    parent: str | None = None
    """The arm that sums this one up with others."""


class Trainer:
    """Trains the models of a study; one line on a terminal tells how many are done."""

    def __init__(self, study: str, total: int) -> None:
        self.study, self.total, self.done = study, total, 0
        self.enabled = sys.stderr.isatty()

    def __enter__(self) -> "Trainer":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.enabled:
            print(file=sys.stderr)

    def train(
        self,
        settings: Sequence[Settings],
        data: Sequence[tuple[Split | Examples, Split | Examples]],
        device: str,
        observe: Observe,
    ) -> tuple[list[Training], list[list[Row]]]:
        """Train models side by side, and observe every epoch of each.

        Raises
        ------
        Diverged
            If one of them does.
        UserError
            As `refashion.training.loop.train_together`.
        """
        rows: list[list[Row]] = [[] for _ in settings]

        def after_epoch(model: int, epoch: Epoch, weights: Weights, seconds: float) -> None:
            rows[model].append(observe(model, epoch, weights))

        trainings = loop.train_together(settings, data, device=device, after_epoch=after_epoch)
        loop.refuse_divergence(self.study, settings, trainings)
        self.done += len(settings)
        if self.enabled:
            text = f"\r{self.study}  training {self.done} of {self.total}"
            print(text, end="", file=sys.stderr, flush=True)
        return trainings, rows


def mean(values: Sequence[float]) -> float:
    """Mean, of the sum rounded once."""
    return math.fsum(values) / len(values)


def over(rows: Sequence[Sequence[Row]]) -> list[Row]:
    """Mean rows of several trainings, epoch by epoch."""
    epochs = zip(*rows, strict=True)
    return [{name: mean([row[name] for row in every]) for name in every[0]} for every in epochs]


def last(rows: Sequence[Sequence[Row]]) -> Row:
    """Means and spreads of the measures in the last epoch."""
    ends = [own[-1] for own in rows]
    return {k: v for name in ends[0] for k, v in spread(name, [end[name] for end in ends]).items()}


def spread(name: str, values: Sequence[float]) -> Row:
    """Mean and standard deviation (n - 1 in the denominator) as two metrics; one value: no second.

    The standard library's deviation is made of exact fractions and rounded once.
    """
    found = {name: mean(values)}
    return found | ({f"{name}_deviation": stdev(values)} if len(values) > 1 else {})


def save(study: str, arms: Sequence[Arm]) -> None:
    """Write what a study leaves: history, record and metrics; timings to ``logs/``."""
    names = dict.fromkeys(k for arm in arms for row in arm.history for k in row)
    rows = [
        [arm.name, epoch, *(row.get(k, "") for k in names)]
        for arm in arms
        for epoch, row in enumerate(arm.history, start=1)
    ]
    files.write_csv(paths.study_history(study), ["arm", "epoch", *names], rows)
    records = {arm.name: _record(study, arm) for arm in arms}
    files.write_json(paths.study_record(study), records)
    files.write_json(paths.study_metrics(study), {arm.name: dict(arm.metrics) for arm in arms})
    logs = {arm.name: {**_timings(arm), **_same(records[arm.name])} for arm in arms}
    files.write_json(paths.training_log(study), logs)


def _record(study: str, arm: Arm) -> dict[str, Any]:
    determined = {
        "arm": arm.name,
        "contract": arm.trainings[0].contract,
        "inputs": dict(arm.inputs),
        "params": dict(arm.params),
        "study": study,
        **({"parent": arm.parent} if arm.parent else {}),
    }
    weights = [digest.weights(training.weights) for training in arm.trainings]
    outputs = {
        "history": history.digest(
            [{"epoch": float(i), **row} for i, row in enumerate(arm.history, start=1)]
        ),
        "weights": hashlib.sha256("\n".join(weights).encode()).hexdigest(),
        **arm.outputs,
    }
    return {**determined, "outputs": outputs, "run_key": run_key(determined)}


def _same(record: Mapping[str, Any]) -> dict[str, str]:
    return {"run_key": record["run_key"], "weights": record["outputs"]["weights"]}


def _timings(arm: Arm) -> dict[str, Any]:
    """Volatile: those of the first training, its times those of all together."""
    every = [training.timings for training in arm.trainings]
    seconds = [
        math.fsum(epoch)
        for epoch in zip_longest(*(t["seconds_per_epoch"] for t in every), fillvalue=0.0)
    ]
    images = math.fsum(t["images_per_second"] * t["seconds"] for t in every)
    total = math.fsum(seconds)
    return {
        **every[0],
        "seconds_per_epoch": seconds,
        "seconds": total,
        "images_per_second": images / total if total else 0.0,
    }
