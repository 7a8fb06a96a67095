"""Trainings side by side as one page that needs nothing but itself."""

import base64
import csv
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from refashion.base import files, paths
from refashion.base.errors import UserError
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.reporting.figures import calibration
from refashion.reporting.side_by_side import Comparison, Side
from refashion.reporting.tables import html, tables
from refashion.tracking import figures
from refashion.tracking.results import Results

TEMPLATE = Path(__file__).with_name("page.html")


def write(found: Comparison, path: Path, pages: Mapping[str, str] | None = None) -> None:
    """Write the page to `path`: tables, and of each training its pictures.

    Parameters
    ----------
    found
        The trainings.
    path
        Where to.
    pages
        Names of other pages to link to, from their files.

    Raises
    ------
    UserError
        If nothing can be written there.
    """
    images = _test_images(found)
    links, sections = {}, []
    for i, (name, side) in enumerate(found.sides.items()):
        links[f"#run-{i}"] = name
        sections.append(_section(f"run-{i}", name, side, found.dataset, images))
    render(
        path,
        title=f"{found.dataset}: trainings side by side",
        links=links | dict(pages or {}),
        notes=found.notes,
        tables=tables(found),
        sections=sections,
    )


def render(
    path: Path,
    *,
    title: str,
    links: Mapping[str, str],
    notes: Iterable[str],
    tables: Iterable[Table],
    sections: Iterable[str],
) -> None:
    """Write a page to `path`.

    Parameters
    ----------
    path
        Where to.
    title
        Of the page.
    links
        Text of every link, by what it points to.
    notes
        Paragraphs.
    tables
        In their order.
    sections
        HTML.

    Raises
    ------
    UserError
        If nothing can be written there.
    """
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=title,
        links="\n".join(
            f'<a href="{escape(target)}">{escape(text)}</a>' for target, text in links.items()
        ),
        notes="\n".join(f'<p class="note">{escape(note)}</p>' for note in notes),
        tables="\n".join(map(html, tables)),
        sections="\n".join(sections),
    )
    try:
        files.write_text(path, page)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None


def _test_images(found: Comparison) -> np.ndarray | None:
    """Images of this checkout's test set; None if it is not the one of the predictions."""
    try:
        split = prepared.load(paths.TEST)
    except UserError:
        return None
    classes = DATASETS[found.dataset].classes
    actual = next(iter(found.sides.values())).results.predictions["actual"]
    return split.images if [classes[i] for i in split.labels.tolist()] == actual else None


def _section(anchor: str, name: str, side: Side, dataset: str, images: np.ndarray | None) -> str:
    """Show one training: what it is known by, and its pictures."""
    title, results, answers = f"{name} on {dataset}", side.results, side.results.predictions
    actual, predicted = answers["actual"], answers["predicted"]
    confidence = list(map(float, answers["confidence"]))
    pictures: dict[str, Figure | None] = {
        "learning curves": figures.learning_curves(title, results.history),
        "confusion matrix": figures.confusion_matrix(
            title, DATASETS[dataset].classes, actual, predicted
        ),
        "calibration": calibration(title, _bins(results)),
    }
    note = ""
    if images is None:
        note = (
            "Its most confident mistakes are not shown: the test images of this checkout, in "
            "data/prepared/test, are not those that it was measured on."
        )
    elif actual == predicted:
        note = "It makes no mistake on the test set."
    else:
        pictures["most confident mistakes"] = figures.confident_mistakes(
            title, images, actual, predicted, confidence
        )
    return "\n".join(
        [
            f'<section id="{anchor}">',
            f"<h2>{escape(name)}</h2>",
            f'<p class="facts">{_facts(side)}</p>',
            *([f'<p class="note">{note}</p>'] if note else []),
            '<div class="pictures">',
            *(
                picture(f"{title}: {what}", figures.png(figure))
                for what, figure in pictures.items()
                if figure
            ),
            "</div>",
            "</section>",
        ]
    )


def _bins(results: Results) -> list[dict[str, float]]:
    file = results.file(paths.calibration(results.variant))
    with file.open(encoding="utf-8", newline="") as opened:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(opened)]


def _facts(side: Side) -> str:
    record = side.results.record
    weights = record["outputs"]["weights"]
    facts = {"run": side.run_id, "run key": record["run_key"], "weights": weights}
    return "<br>".join(f"{k} <code>{escape(v)}</code>" for k, v in facts.items() if v)


def picture(alt: str, png: bytes) -> str:
    """A picture as HTML, in a box that scrolls where the screen is narrow."""
    data, alt = base64.b64encode(png).decode(), escape(alt)
    return (
        f'<div class="scroll" role="region" aria-label="{alt}" tabindex="0">'
        f'<img src="data:image/png;base64,{data}" alt="{alt}"></div>'
    )
