"""Variants side by side: accuracies with intervals, and a test of every pair."""

import operator
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from refashion.base import files
from refashion.base.errors import UserError
from refashion.evaluation import predictions as answers
from refashion.evaluation.predictions import Predictions
from refashion.evaluation.statistics import holm, mcnemar, wilson
from refashion.runs.run import Run

SIGNIFICANCE = 0.05

METRICS = {
    "accuracy": "test_accuracy",
    "cross_entropy": "test_cross_entropy_nats",
    "calibration_error": "test_expected_calibration_error",
}
"""What DVC compares variants by, and the metrics of a run that it stands for."""

CURVES = ["epoch", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]
CALIBRATION = ["low", "high", "images", "confidence", "accuracy"]


def compare(predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """Compare variants by their answers to the same test images.

    Parameters
    ----------
    predictions : mapping
        From name of the variant to its predictions.

    Returns
    -------
    dict
        ``variants``: name to ``accuracy`` with its 95 % Wilson interval ``low`` to ``high``,
        ``correct`` and ``images``. ``pairs``: "a vs b", in alphabetical order, to the number of
        images that are correct only in the first, ``only_first``, or only in the second,
        ``only_second``; the exact McNemar ``p_value``; ``p_holm``, adjusted for the number of
        pairs; and ``better``, the variant that is better at an adjusted 5 %, or None.

    Raises
    ------
    UserError
        If two variants were not evaluated on the same test set.
    """
    names = sorted(predictions)
    for name in names[1:]:
        if predictions[name].actual != predictions[names[0]].actual:
            raise UserError(
                f"{names[0]} and {name}: measured on different test sets; choose runs that were "
                "measured on the same, or run `dvc repro` to measure both on the present one"
            )
    correct = {name: predictions[name].correct for name in names}
    variants = {}
    for name in names:
        hits, n = sum(correct[name]), len(correct[name])
        low, high = wilson(hits, n)
        variants[name] = {
            "accuracy": hits / n,
            "low": low,
            "high": high,
            "correct": hits,
            "images": n,
        }
    return {"variants": variants, "pairs": _pairs(correct)}


def _pairs(correct: Mapping[str, list[bool]]) -> dict[str, dict[str, Any]]:
    """Test every pair of variants, given in alphabetical order."""
    names = list(combinations(correct, 2))
    # A bool is greater than another where it alone is true.
    counts = [
        (
            sum(map(operator.gt, correct[a], correct[b])),
            sum(map(operator.lt, correct[a], correct[b])),
        )
        for a, b in names
    ]
    p_values = [mcnemar(*pair) for pair in counts]
    pairs = {}
    for (a, b), (only_a, only_b), p, p_holm in zip(
        names, counts, p_values, holm(p_values), strict=True
    ):
        better = (a if only_a > only_b else b) if p_holm <= SIGNIFICANCE else None
        pairs[f"{a} vs {b}"] = {
            "only_first": only_a,
            "only_second": only_b,
            "p_value": p,
            "p_holm": p_holm,
            "better": better,
        }
    return pairs


def write(runs: Iterable[Run], folder: Path) -> dict[str, Any]:
    """Compare runs, and write what DVC shows of all of them side by side.

    Parameters
    ----------
    runs : iterable of Run
        Each with its record, history and all that its evaluation measured; named by their titles.
    folder : Path
        For ``metrics.json``, ``comparison.json``, ``accuracies.csv``, ``curves.csv``,
        ``calibration.csv`` and ``confusion.csv`` (all pairs of classes, those of no image too).

    Returns
    -------
    dict
        As `compare` gives it.

    Raises
    ------
    UserError
        If a file of a run is missing, or as `compare`.
    """
    by_name = {run.title: run for run in sorted(runs, key=lambda run: run.title)}
    predictions = {name: answers.read(run.file("predictions.csv")) for name, run in by_name.items()}
    result = compare(predictions)
    files.write_json(folder / "comparison.json", result)
    metrics = {"lr": {name: run.record.params["lr"] for name, run in by_name.items()}} | {
        short: {name: run.metrics[metric] for name, run in by_name.items()}
        for short, metric in METRICS.items()
    }
    # DVC shows columns in this order: first what was changed, then what came of it.
    files.write_json(folder / "metrics.json", metrics, sort_keys=False)
    bounds = ["accuracy", "low", "high"]
    accuracies = [[name, *(v[b] for b in bounds)] for name, v in result["variants"].items()]
    files.write_csv(folder / "accuracies.csv", ["run", *bounds], accuracies)
    for file, source, columns in (
        ("curves.csv", "history.csv", CURVES),
        ("calibration.csv", "calibration.csv", CALIBRATION),
    ):
        rows = [
            [name, *(row.get(column, "") for column in columns)]
            for name, run in by_name.items()
            for row in run.table(source)
        ]
        files.write_csv(folder / file, ["run", *columns], rows)
    confusion = []
    for name, run in by_name.items():
        images = Counter(zip(predictions[name].actual, predictions[name].predicted, strict=True))
        classes = [row["class"] for row in run.table("per_class.csv")]
        confusion += [[name, a, p, images[a, p]] for a in classes for p in classes]
    header = ["run", "actual", "predicted", "images"]
    files.write_csv(folder / "confusion.csv", header, confusion)
    return result


def refuse_stale(folder: Path, names: Collection[str]) -> None:
    """Refuse evaluations of variants that ``params.yaml`` no longer has.

    DVC hashes the folder whole: what is left there would become part of the present results.

    Raises
    ------
    UserError
        If there is one.
    """
    for stale in sorted({own.name for own in folder.glob("*/")} - set(names)):
        raise UserError(
            f"{folder / stale}: params.yaml no longer has this variant; `dvc checkout` removes "
            "its evaluation, then run `dvc repro` again"
        )


def tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    """Lay the comparison out: accuracies, then pairs where there are any."""
    table = Table("run", "accuracy", "95 % interval", "correct", title="Test accuracy")
    for name, v in comparison["variants"].items():
        interval = f"{v['low']:.4f} to {v['high']:.4f}"
        count = f"{v['correct']:,} of {v['images']:,}"
        table.add_row(name, f"{v['accuracy']:.4f}", interval, count)
    yield table
    if not comparison["pairs"]:
        return
    table = Table(
        *(Column("pair", no_wrap=True), "correct only in the first / only in the second"),
        *("p, McNemar", "p, Holm", Column("better", no_wrap=True)),
        title="Which is better: exact McNemar tests with Holm's correction",
    )
    for name, pair in comparison["pairs"].items():
        counts = f"{pair['only_first']:,} / {pair['only_second']:,}"
        p_values = (f"{pair['p_value']:.2g}", f"{pair['p_holm']:.2g}")
        table.add_row(name, counts, *p_values, pair["better"] or "not significant")
    yield table
