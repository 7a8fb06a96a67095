"""Tables of runs side by side, for a terminal, for GitHub and for a page."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from refashion.evaluation import comparison as statistics
from refashion.pictures.points import ranked, text, usable
from refashion.reporting.side_by_side import MANY, Comparison

LABELS = {
    "test_accuracy": "test accuracy",
    "test_top2_accuracy": "top-2 accuracy",
    "test_macro_f1": "macro F1",
    "test_cross_entropy_nats": "cross-entropy / nats",
    "test_expected_calibration_error": "calibration error",
    "validation_accuracy": "validation accuracy",
    "validation_loss": "validation loss",
}
"""Headings of metrics, in their order; all others are shown under their names."""

WIDE = 10_000
"""Columns of what is no terminal: nothing is cut off or folded."""

LONGEST, FEW = 50, 10
"""Of more runs than the one number, a table of the best shows the other."""

LEFT_OUT = {
    "test_images",
    "test_cross_entropy_bits",
    "test_prediction_entropy_nats",
    "test_prediction_entropy_bits",
}
"""Metrics that the tables have no column for; `Comparison.as_dict` has them."""


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table for a terminal; `rows_of` gives its cells back."""
    filled = Table(*(Column(name, overflow="fold") for name in header), title=title)
    for row in rows:
        filled.add_row(*row)
    return filled


def tables(comparison: Comparison) -> Iterator[Table]:
    """Tables of settings, accuracies, metrics, means over seeds and tests, if there are any.

    Settings and metrics of several runs with a validation accuracy are in one, the best first.
    """
    metrics = {name: run.metrics for name, run in comparison.runs.items()}
    names = headings(metrics.values())
    keys = [*next(iter(comparison.settings.values()))]
    settings = {name: list(map(text, s.values())) for name, s in comparison.settings.items()}
    spread = any(name.endswith("_std") for row in metrics.values() for name in row)
    form = ": mean ± standard deviation" if spread else ""
    accuracies, *pairs = statistics.tables(comparison.tests)
    if comparison.best:
        runs = [*dict.fromkeys([*ranked(metrics), *metrics])]
        shown = runs if len(runs) <= LONGEST else runs[:FEW]
        which = "All" if len(runs) == len(shown) else f"The best {len(shown)} of"
        title = f"{which} {len(runs)} runs, by validation accuracy{form}"
        rows = ([n, *settings[n], *_cells(usable(metrics[n]), names)] for n in shown)
        yield table(title, ("run", *keys, *names.values()), rows)
    else:
        if keys:
            rows = ([name, *values] for name, values in settings.items())
            yield table("Settings that differ", ("run", *keys), rows)
        if comparison.tests["variants"]:
            yield accuracies
            names.pop("test_accuracy", None)
        rows = ([name, *_cells(values, names)] for name, values in metrics.items())
        yield table(f"Metrics{form}", ("run", *names.values()), rows)
    if comparison.seeds:
        title = "Runs that differ in their seed alone: mean ± standard deviation (n - 1)"
        names = headings(point.means for point in comparison.seeds.values())
        rows = (
            [name, str(len(p.runs)), text(comparison.seeds_of(p)), *_cells(p.means, names)]
            for name, p in comparison.seeds.items()
        )
        yield table(title, ("runs", "n", "seeds", *names.values()), rows)
    if len(comparison.runs) <= MANY:
        yield from pairs


def headings(runs: Iterable[Mapping[str, float]]) -> dict[str, str]:
    """Headings of all metrics that some run has, those with one of `LABELS` first."""
    present = dict.fromkeys(name for metrics in runs for name in metrics)
    others = [name for name in present if name not in LABELS and name not in LEFT_OUT]
    names = [*(name for name in LABELS if name in present), *others]
    return {name: LABELS.get(name, name) for name in names if not name.endswith("_std")}


def _cells(metrics: Mapping[str, float], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        value, std = metrics.get(name), metrics.get(f"{name}_std")
        form = "," if isinstance(value, int) else "#.4g"
        number = "-" if value is None else f"{value:{form}}"
        yield number if std is None else f"{number} ± {std:.2g}"


def lines(shown: Iterable[Table], notes: Iterable[str]) -> list[str]:
    """Tables and notes for standard output.

    On a terminal they are as wide as that is, and wider only where a word would be lost.
    """
    is_piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    console = Console(markup=False, width=WIDE if is_piped else None)
    width, unbounded = console.width, console.options.update(max_width=WIDE)
    parts: list[Table | str] = [*shown, *notes]
    with console.capture() as captured:
        for part in parts:
            least = Measurement.get(console, unbounded, part).minimum
            console.width = max(width, least)
            console.print(part)
    return captured.get().splitlines()


def markdown(comparison: Comparison) -> str:
    """Tables and notes as GitHub's Markdown."""
    lines = []
    for table in tables(comparison):
        cells = ([cell.replace("|", r"\|") for cell in row] for row in rows_of(table))
        header, *rows = (f"| {' | '.join(row)} |" for row in cells)
        lines += [f"### {table.title}", "", header, "|" + "---|" * len(table.columns), *rows, ""]
    return "\n".join([*lines, *(f"{note}\n" for note in comparison.notes)])


def rows_of(table: Table) -> list[list[str]]:
    """The header and the rows of a table."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return [[str(c.header) for c in table.columns], *([str(c) for c in row] for row in rows)]
