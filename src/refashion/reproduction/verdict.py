"""Did a run come out the same? If not: the first stage, epoch and tensor that differ."""

import math
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

import numpy as np

from refashion.tracking.results import Results

TENSOR_TOLERANCE = 0.05
"""Largest distance between two native trainings' tensors, relative to the tensor's norm."""

METRIC_TOLERANCE = 0.02
"""Largest difference between their metrics on the test set."""

Outcome = Literal["identical", "within tolerance", "different"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far a tensor is from what it was."""

    largest: float
    """Of any number, absolute."""

    distance: float
    """Between the tensors, relative to the norm of the former."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of running a variant again."""

    variant: str
    outcome: Outcome
    stage: str | None = None
    """First stage whose outputs differ."""
    epoch: int | None = None
    """First epoch whose row of the history differs."""
    tensor: str | None = None
    """First tensor that differs at the end of the training."""
    tensors: dict[str, Difference] = field(default_factory=dict)
    """Every tensor that differs, from the first layer on."""
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


def compare(expected: Results, found: Results) -> Verdict:
    """Hold what a rerun left against what the run had left.

    Parameters
    ----------
    expected, found : Results
        Of the same variant. The expected weights and predictions may be missing; their digests
        in the record and the metrics then decide alone.

    Returns
    -------
    Verdict
        ``within tolerance`` is open to native numerics alone.
    """
    before, after = expected.record, found.record
    tensors, note = _tensors(expected, found)
    metrics = _differences(flat(expected.metrics), flat(found.metrics))
    same_answers = all(
        found.file(path).read_bytes() == expected.file(path).read_bytes()
        for path in expected.answers
        if expected.has(path)
    )
    stages = {
        "settings": before["params"] == after["params"],
        "preprocess": before["inputs"] == after["inputs"],
        "train": before["outputs"] == after["outputs"] and not tensors,
        "evaluate": not metrics and same_answers,
    }
    stage = next((name for name, same in stages.items() if not same), None)
    if stage is None:
        return Verdict(variant=expected.variant, outcome="identical", note=note)
    close = (
        str(before["contract"]).startswith("native")
        and stage in ("train", "evaluate")
        and all(d.distance <= TENSOR_TOLERANCE for d in tensors.values())
        and all(d <= METRIC_TOLERANCE for d in metrics.values())
        and not note
    )
    return Verdict(
        variant=expected.variant,
        outcome="within tolerance" if close else "different",
        stage=stage,
        epoch=first_epoch(expected, found),
        tensor=next(iter(tensors), None),
        tensors=tensors,
        metrics=metrics,
        note=note,
    )


def first_epoch(a: Results, b: Results) -> int | None:
    """First epoch in which two histories part; None if they never do."""
    for epoch, (one, other) in enumerate(zip_longest(a.rows, b.rows), start=1):
        if one != other:
            return epoch
    return None


def _tensors(expected: Results, found: Results) -> tuple[dict[str, Difference], str]:
    """The tensors that differ, from the first layer on; why there are none."""
    from safetensors.numpy import load_file

    path = expected.weights
    if path is None:
        return {}, ""
    if not expected.has(path):
        return {}, "the run's weights are not here, so their tensors were not compared one by one"
    before, after = (load_file(side.file(path)) for side in (expected, found))
    differences = {}
    for name in sorted({*before, *after}):
        a, b = before.get(name), after.get(name)
        if a is None or b is None or a.shape != b.shape:
            differences[name] = Difference(largest=math.inf, distance=math.inf)
        elif a.tobytes() != b.tobytes():
            norm = float(np.linalg.norm(a)) or 1.0
            differences[name] = Difference(
                largest=float(np.abs(a - b).max()), distance=float(np.linalg.norm(a - b)) / norm
            )
    return differences, ""


def flat(metrics: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Metrics of metrics of ..., by dotted name."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _differences(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {
        name: abs(a[name] - b[name]) if name in a and name in b else math.inf
        for name in sorted({*a, *b})
        if a.get(name) != b.get(name)
    }
