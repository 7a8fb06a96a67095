"""Runs side by side as a page that needs nothing but itself."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from rich.table import Table

from refashion.base import files
from refashion.base.errors import UserError
from refashion.pictures import of_run
from refashion.pictures.figures import png
from refashion.reporting.side_by_side import Comparison
from refashion.reporting.tables import rows_of, tables
from refashion.runs.run import Run

WIDE = 1.5
"""Width by height from which on a picture has a row of its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Pictures under a title."""

    title: str
    figures: Mapping[str, Figure]
    """By the text that stands for them where they cannot be seen."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a page shows, from top to bottom."""

    title: str
    notes: list[str]
    """Paragraphs."""
    tables: list[Table]
    sections: list[Section]


def of(
    comparison: Comparison,
    test: Path,
    *,
    title: str | None = None,
    notes: Iterable[str] = (),
    figures: Mapping[str, Figure] | None = None,
) -> Page:
    """The page of runs side by side: notes, tables, and the pictures of each run.

    Parameters
    ----------
    comparison
        The runs.
    test
        Folder of the test images, for pictures of them.
    title
        By default, the data set's.
    notes
        Paragraphs that introduce the runs.
    figures
        Pictures of all runs together, by the text that stands for them.

    Raises
    ------
    UserError
        If a run's file is damaged.
    """
    sections = [Section(title="All runs", figures=figures or {})]
    sections += [_section(name, run, test) for name, run in comparison.runs.items()]
    return Page(
        title=title or f"{comparison.dataset}: runs side by side",
        notes=[*notes, *comparison.notes],
        tables=[*tables(comparison), _digests(comparison)],
        sections=[section for section in sections if section.figures],
    )


def write(path: Path, page: Page, pages: Mapping[str, str] | None = None) -> None:
    """Write a page to `path`, with links to the others of `pages`: titles by file name.

    Raises
    ------
    UserError
        If nothing can be written there.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"rows": rows_of, "png": _base64, "is_wide": _is_wide}
    template = environment.get_template("page.html.jinja")
    html = template.render(page=page, pages=pages or {}, own_name=path.name)
    try:
        files.write_text(path, html)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None


def _section(name: str, run: Run, test: Path) -> Section:
    drawn = of_run.of_files(run, test)
    note = ""
    if run.has("predictions.csv") and "predictions" not in drawn:
        note = (
            "Its predictions are not shown in pictures: the test images of this checkout, in "
            "data/prepared/test, are not those that it was measured on."
        )
    elif run.has("predictions.csv") and "confident_mistakes" not in drawn:
        note = "It makes no mistake on the test set."
    figures = {f"{name}: {what.replace('_', ' ')}": figure for what, figure in drawn.items()}
    return Section(title=name, figures=figures, note=note)


def _digests(comparison: Comparison) -> Table:
    known = bool(comparison.ids)
    columns = ["run", *["MLflow run"] * known, "run key", "weights"]
    table = Table(*columns, title="Ids and digests")
    for name, run in comparison.runs.items():
        run_id = [comparison.ids.get(name, "-")] * known
        table.add_row(name, *run_id, run.record.run_key, run.record.outputs["weights"])
    return table


def _base64(figure: Figure) -> str:
    return base64.b64encode(png(figure)).decode()


def _is_wide(figure: Figure) -> bool:
    width, height = figure.get_size_inches()
    return width > WIDE * height
