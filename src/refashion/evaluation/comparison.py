"""All variants side by side, and every pair put to the test."""

import operator
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from rich.table import Table

from refashion.base.errors import UserError
from refashion.evaluation.predictions import Predictions
from refashion.evaluation.statistics import holm, mcnemar, wilson

SIGNIFICANCE = 0.05


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
        ``correct`` and ``images``. ``pairs``: "a vs b", in alphabetical order, to the images
        that ``only_first`` or ``only_second`` gets right, the exact McNemar ``p_value``,
        ``p_holm``, adjusted for the number of pairs, and ``better``, the variant that is better
        at an adjusted 5 %, or None.

    Raises
    ------
    UserError
        If two variants were not evaluated on the same test set.
    """
    names = sorted(predictions)
    for name in names[1:]:
        if predictions[name].actual != predictions[names[0]].actual:
            raise UserError(
                f"{names[0]} and {name}: evaluated on different test sets; run `dvc repro` "
                "to evaluate both on the present one"
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


def accuracies(comparison: Mapping[str, Any]) -> list[list[Any]]:
    """Rows of variant, accuracy, low and high, in alphabetical order."""
    return [
        [name, v["accuracy"], v["low"], v["high"]] for name, v in comparison["variants"].items()
    ]


def tables(comparison: Mapping[str, Any]) -> Iterator[Table]:
    """Lay the comparison out for a terminal: accuracies, then pairs where there are any."""
    table = Table("variant", "test accuracy", "95 % interval", "correct")
    for name, v in comparison["variants"].items():
        interval = f"{v['low']:.4f} to {v['high']:.4f}"
        count = f"{v['correct']:,} of {v['images']:,}"
        table.add_row(name, f"{v['accuracy']:.4f}", interval, count)
    yield table
    if not comparison["pairs"]:
        return
    table = Table("pair", "only one is right", "p, McNemar", "p, Holm", "better")
    for name, pair in comparison["pairs"].items():
        discordant = f"{pair['only_first']:,} : {pair['only_second']:,}"
        better = pair["better"] or "may be luck"
        table.add_row(name, discordant, f"{pair['p_value']:.2g}", f"{pair['p_holm']:.2g}", better)
    yield table
