"""Comparison of variants: accuracies with intervals, and a test of each pair."""

import operator
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from refashion.base import files
from refashion.base.errors import UserError
from refashion.evaluation.statistics import holm, mcnemar, wilson
from refashion.runs.run import Columns, Run, write_together

SIGNIFICANCE = 0.05

METRICS = {
    "accuracy": "test_accuracy",
    "cross_entropy": "test_cross_entropy_nats",
    "calibration_error": "test_expected_calibration_error",
}
"""DVC's metrics of a variant, and the names that its run has for them."""

CURVES = ["epoch", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy"]


def compare(predictions: Mapping[str, Columns]) -> dict[str, Any]:
    """Compare variants, given by name, by their `Run.predictions` for the same test images.

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
        if predictions[name]["actual"] != predictions[names[0]]["actual"]:
            raise UserError(
                f"{names[0]} and {name}: measured on different test sets; choose runs that were "
                "measured on the same, or run `dvc repro` to measure both on the present one"
            )
    correct = {
        name: list(map(operator.eq, predictions[name]["actual"], predictions[name]["predicted"]))
        for name in names
    }
    variants = {}
    for name in names:
        hits, n = sum(correct[name]), len(correct[name])
        low, high = wilson(hits, n)
        shares = {"accuracy": hits / n, "low": low, "high": high}
        variants[name] = {**shares, "correct": hits, "images": n}
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for a, b in combinations(names, 2):
        # A bool is greater than another where it alone is true.
        only_a = sum(map(operator.gt, correct[a], correct[b]))
        only_b = sum(map(operator.lt, correct[a], correct[b]))
        p_value = mcnemar(only_a, only_b)
        pairs[a, b] = {"only_first": only_a, "only_second": only_b, "p_value": p_value}
    adjusted = holm([pair["p_value"] for pair in pairs.values()])
    for ((a, b), pair), p_holm in zip(pairs.items(), adjusted, strict=True):
        winner = a if pair["only_first"] > pair["only_second"] else b
        pair |= {"p_holm": p_holm, "better": winner if p_holm <= SIGNIFICANCE else None}
    return {"variants": variants, "pairs": {f"{a} vs {b}": p for (a, b), p in pairs.items()}}


def write(runs: Iterable[Run], folder: Path) -> dict[str, Any]:
    """Compare evaluated runs by their titles, and write the metrics and plots that DVC shows.

    To `folder` go ``metrics.json``, ``comparison.json``, ``accuracies.csv``, ``curves.csv``,
    ``calibration.csv`` and ``confusion.csv`` (all pairs of classes, those of no image too).
    Returns and raises as `compare`; `UserError` too if a file of a run is missing.
    """
    by_name = {run.title: run for run in sorted(runs, key=lambda run: run.title)}
    result = compare({name: run.predictions for name, run in by_name.items()})
    files.write_json(folder / "comparison.json", result)
    metrics = {"lr": {name: run.record.params["lr"] for name, run in by_name.items()}} | {
        short: {name: run.metrics[metric] for name, run in by_name.items()}
        for short, metric in METRICS.items()
    }
    # DVC shows columns in this order: the setting first, then the results.
    files.write_json(folder / "metrics.json", metrics, sort_keys=False)
    bounds = ["accuracy", "low", "high"]
    accuracies = [[name, *(v[b] for b in bounds)] for name, v in result["variants"].items()]
    files.write_csv(folder / "accuracies.csv", ["run", *bounds], accuracies)
    write_together(folder / "curves.csv", by_name, "history.csv", CURVES)
    write_together(folder / "calibration.csv", by_name, "calibration.csv")
    confusion = []
    for name, run in by_name.items():
        images = Counter(zip(run.predictions["actual"], run.predictions["predicted"], strict=True))
        classes = [row["class"] for row in run.table("per_class.csv")]
        confusion += [[name, a, p, images[a, p]] for a in classes for p in classes]
    header = ["run", "actual", "predicted", "images"]
    files.write_csv(folder / "confusion.csv", header, confusion)
    return result


def refuse_stale(folder: Path, names: Collection[str]) -> None:
    """Raise UserError if a variant of `folder` is not among the names of ``params.yaml``.

    DVC hashes the folder whole: a stale evaluation would become part of the present results.
    """
    if stale := {evaluation.name for evaluation in folder.glob("*/")} - set(names):
        raise UserError(
            f"{folder / min(stale)}: params.yaml no longer has this variant; `dvc checkout` "
            "removes its evaluation, then run `dvc repro` again"
        )


def tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    """Tables of a comparison: accuracies, then pairs if there are any."""
    table = Table("run", "accuracy", "95 % interval", "correct", title="Test accuracy")
    for name, v in comparison["variants"].items():
        interval = f"{v['low']:.4f} to {v['high']:.4f}"
        counts = f"{v['correct']:,} of {v['images']:,}"
        table.add_row(name, f"{v['accuracy']:.4f}", interval, counts)
    yield table
    if not comparison["pairs"]:
        return
    table = Table(
        *(Column("pair", overflow="fold"), "correct only in the first / only in the second"),
        *("p, McNemar", "p, Holm", Column("better", overflow="fold")),
        title="Which is better: exact McNemar tests with Holm's correction",
    )
    for name, pair in comparison["pairs"].items():
        counts = f"{pair['only_first']:,} / {pair['only_second']:,}"
        p_values = (f"{pair['p_value']:.2g}", f"{pair['p_holm']:.2g}")
        table.add_row(name, counts, *p_values, pair["better"] or "not significant")
    yield table
