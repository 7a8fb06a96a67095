"""Trainings side by side as one page that needs nothing but itself."""

import base64
import csv
from html import escape
from pathlib import Path
from string import Template

import numpy as np
from matplotlib.figure import Figure

from refashion import files, paths
from refashion.data import prepared
from refashion.data.catalogue import DATASETS
from refashion.errors import UserError
from refashion.reporting.figures import calibration
from refashion.reporting.side_by_side import Comparison, Side
from refashion.reporting.tables import html, tables
from refashion.tracking import figures
from refashion.tracking.results import Results

TEMPLATE = Path(__file__).with_name("page.html")


def write(found: Comparison, path: Path) -> None:
    """Write the page to `path`: tables, and of each training its pictures.

    Raises
    ------
    UserError
        If nothing can be written there.
    """
    images = _test_images(found)
    links, sections = [], []
    for i, (name, side) in enumerate(found.sides.items()):
        links.append(f'<a href="#run-{i}">{escape(name)}</a>')
        sections.append(_section(f"run-{i}", name, side, found.dataset, images))
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=f"{found.dataset}: trainings side by side",
        links="\n".join(links),
        notes="\n".join(f'<p class="note">{escape(note)}</p>' for note in found.notes),
        tables="\n".join(map(html, tables(found))),
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
            *(_picture(f"{title}: {what}", figure) for what, figure in pictures.items() if figure),
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


def _picture(alt: str, figure: Figure) -> str:
    data, alt = base64.b64encode(figures.png(figure)).decode(), escape(alt)
    return (
        f'<div class="scroll" role="region" aria-label="{alt}" tabindex="0">'
        f'<img src="data:image/png;base64,{data}" alt="{alt}"></div>'
    )
