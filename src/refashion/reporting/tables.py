"""The numbers of trainings side by side as tables: for a terminal, for GitHub, for a page."""

from collections.abc import Iterator
from html import escape

from rich.console import Console
from rich.table import Table

from refashion.evaluation import comparison
from refashion.reporting.side_by_side import Comparison, text

METRICS = {
    "top2_accuracy": "top-2 accuracy",
    "macro_f1": "macro F1",
    "cross_entropy_nats": "cross-entropy / nats",
    "expected_calibration_error": "calibration error",
}
"""Metrics that are shown besides the accuracy, and what they are called."""


def tables(found: Comparison) -> Iterator[Table]:
    """Lay trainings out side by side: settings, metrics, means over seeds, tests."""
    if found.apart:
        table = Table("run", *found.apart, title="Settings that differ")
        for name, side in found.sides.items():
            table.add_row(name, *(text(side.settings.get(key)) for key in found.apart))
        yield table
    accuracies, *pairs = comparison.tables(found.tested)
    accuracies.title = "Test accuracy"
    accuracies.columns[0].header = "run"
    yield accuracies
    table = Table("run", *METRICS.values(), title="Other metrics on the test set")
    for name, side in found.sides.items():
        table.add_row(name, *(_number(side.metrics.get(key)) for key in METRICS))
    yield table
    if found.seeds:
        title = "Runs that differ in their seed alone; standard deviation with n - 1"
        table = Table("runs", "n", "seeds", "metric", "mean", "standard deviation", title=title)
        for name, group in found.seeds.items():
            first = [name, str(len(group.seeds)), text(group.seeds)]
            for key, label in {"accuracy": "test accuracy", **METRICS}.items():
                if key in group.mean:
                    both = (group.mean[key], group.standard_deviation[key])
                    table.add_row(*first, label, *map(_number, both))
        yield table
    for table in pairs:
        table.title = "Which is better: exact McNemar tests with Holm's correction"
        yield table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def show(found: Comparison) -> None:
    """Print the tables on the terminal."""
    console = Console(markup=False)
    for table in tables(found):
        console.print(table)
    for note in found.notes:
        console.print(note)


def markdown(found: Comparison) -> str:
    """Write the tables as GitHub's Markdown has them."""
    return "\n".join([*map(_markdown, tables(found)), *(f"{note}\n" for note in found.notes)])


def _markdown(table: Table) -> str:
    header, *rows = (
        "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in _rows(table)
    )
    rule = "|" + "---|" * len(table.columns)
    return "\n".join([f"### {table.title}", "", header, rule, *rows, ""])


def html(table: Table) -> str:
    """Write a table as HTML, in a box that scrolls where the screen is narrow."""
    title = escape(str(table.title))
    header, *rows = ([escape(cell) for cell in row] for row in _rows(table))
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'
        for first, *others in rows
    )
    return (
        f'<h2>{title}</h2>\n<div class="scroll" role="region" aria-label="{title}" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _rows(table: Table) -> list[list[str]]:
    """Give the header and the rows."""
    cells = zip(*(column.cells for column in table.columns), strict=True)
    return [[str(c.header) for c in table.columns], *([str(c) for c in row] for row in cells)]
