"""Did a run come out the same? If not: the first stage, epoch and tensor that differ."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

import numpy as np

from refashion.runs.run import MEASURED, WEIGHTS, Run

TENSOR_TOLERANCE = 0.05
"""Largest distance between two native trainings' tensors, relative to the tensor's norm."""

METRIC_TOLERANCE = 0.02
"""Largest difference between their metrics on the test set."""

Outcome = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a run came out the same when it was made again."""

    name: str
    """Of the run."""

    outcome: Outcome
    stage: str | None = None
    """First stage whose outputs differ."""
    epoch: int | None = None
    """First epoch whose row of the history differs."""
    tensor: str | None = None
    """First tensor that differs at the end of the training."""
    tensors: dict[str, dict[str, float]] = field(default_factory=dict)
    """Every tensor that differs, from the first layer on: ``largest`` difference of any number,
    and ``distance`` of the tensors, relative to the norm of the former."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Absolute difference of every metric on the test set that differs."""
    note: str = ""
    """What could not be compared, and why."""

    @property
    def holds(self) -> bool:
        """Whether the run keeps its promise."""
        return self.outcome != "different"

    def __str__(self) -> str:
        """One line for people."""
        if self.outcome == "identical":
            return "identical"
        where = [f"stage {self.stage}"]
        where += [f"epoch {self.epoch}"] if self.epoch else []
        where += [f"tensor {self.tensor}"] if self.tensor else []
        return f"{self.outcome}: first at {', '.join(where)}"


def compare(expected: Run, actual: Run) -> Verdict:
    """Compare what a rerun left with what the run had left.

    Of the expected run the weights and what was measured may be missing: the digests in its record
    then decide alone. Native numerics alone can be ``within tolerance``.
    """
    before, after = expected.record, actual.record
    missing = [f for f in (WEIGHTS, *MEASURED) if actual.has(f) and not expected.has(f)]
    note = f"not here, so not compared: {', '.join(missing)}" if missing else ""
    tensors = _tensors(expected, actual) if expected.has(WEIGHTS) else {}
    measured = expected.has("metrics.json")
    metrics = _differences(expected.metrics, actual.metrics) if measured else {}
    written = [name for name in before.files if name != WEIGHTS]  # compared by tensor
    same = {
        "settings": before.params == after.params,
        "preprocess": before.inputs == after.inputs,
        "train": before.outputs == after.outputs
        and not tensors
        and _same_files(expected, actual, written),
        "evaluate": not metrics and _same_files(expected, actual, MEASURED),
    }
    stage = next((name for name in same if not same[name]), None)
    if stage is None:
        return Verdict(name=expected.name, outcome="identical", note=note)
    close = (
        before.contract.startswith("native")
        and stage in ("train", "evaluate")
        and all(d["distance"] <= TENSOR_TOLERANCE for d in tensors.values())
        and all(d <= METRIC_TOLERANCE for d in metrics.values())
        and not note
    )
    return Verdict(
        name=expected.name,
        outcome="within tolerance" if close else "different",
        stage=stage,
        epoch=first_epoch(expected, actual),
        tensor=next(iter(tensors), None),
        tensors=tensors,
        metrics=metrics,
        note=note,
    )


def first_epoch(a: Run, b: Run) -> int | None:
    """First epoch in which two histories diverge; None if they never do."""
    rows = enumerate(zip_longest(a.rows, b.rows), start=1)
    return next((epoch for epoch, (row, other) in rows if row != other), None)


def _same_files(expected: Run, actual: Run, names: Iterable[str]) -> bool:
    """Whether files, as far as the expected run has them, are the same bytes."""
    return all(
        actual.has(name) and actual.file(name).read_bytes() == expected.file(name).read_bytes()
        for name in names
        if expected.has(name)
    )


def _tensors(expected: Run, actual: Run) -> dict[str, dict[str, float]]:
    """The tensors that differ, from the first layer on."""
    from safetensors.numpy import load_file

    before, after = (load_file(run.file(WEIGHTS)) for run in (expected, actual))
    differences = {}
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if a is None or b is None or a.shape != b.shape:
            differences[name] = {"largest": math.inf, "distance": math.inf}
        elif a.tobytes() != b.tobytes():
            largest, distance = float(np.abs(a - b).max()), float(np.linalg.norm(a - b))
            norm = float(np.linalg.norm(a)) or 1.0
            differences[name] = {"largest": largest, "distance": distance / norm}
    return differences


def _differences(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """How far values are apart that differ, by name; infinitely, where one is no number."""
    differences = {}
    for name, values in pairs(a, b).items():
        are_numbers = all(isinstance(value, int | float) for value in values)
        differences[name] = abs(values[0] - values[1]) if are_numbers else math.inf
    return differences


def pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Both values of what differs, by name, None where there is none."""
    return {k: [a.get(k), b.get(k)] for k in sorted({*a, *b}) if a.get(k) != b.get(k)}
