"""HTML pages of runs side by side, which hold their pictures and load nothing."""

import base64
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from rich.table import Table

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.pictures.figures import png
from refashion.pictures.studies import PICTURES
from refashion.reporting import explained, side_by_side
from refashion.reporting.side_by_side import Comparison
from refashion.reporting.tables import rows_of, tables
from refashion.runs import listing
from refashion.runs.run import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Pictures under a title."""

    title: str
    figures: Mapping[str, Figure]
    """By their alternative text."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Content of a page, from top to bottom; each note is a paragraph."""

    title: str
    notes: Sequence[str]
    tables: Sequence[Table]
    sections: Sequence[Section]


def of(
    comparison: Comparison,
    test: Path,
    *,
    title: str | None = None,
    notes: Iterable[str] = (),
    figures: Mapping[str, Figure] | None = None,
) -> Page:
    """The page of runs side by side: notes, tables, and the pictures of each run.

    `test` is the folder of the test images, `notes` introduces the runs, and `figures` are pictures
    of all runs together, by their alternative text.

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


def write_all(workspace: Workspace, path: Path) -> Iterator[Path]:
    """Write the variants' page to `path`, and those of studies and the explanation beside it.

    A study that has not run in this workspace has no page, and neither has the explanation if the
    model or the test images are missing. Yields each page when it is written.

    Raises
    ------
    UserError
        If a result is missing, or nothing can be written there.
    """
    variants = side_by_side.of(listing.variants(workspace))
    pages = {path.name: of(variants, workspace.test, title="Variants")}
    for study in PICTURES:
        if runs := listing.of_study(workspace, study):
            name = f"{path.stem}-{study}{path.suffix}"
            pages[name] = _of_study(study, runs, workspace.test)
    try:
        explanation = explained.explain(workspace)
    except UserError as error:
        print(f"softmax and cross-entropy are not explained: {error}", file=sys.stderr)
    else:
        pages[f"{path.stem}-explained{path.suffix}"] = _of_explanation(explanation)
    titles = {name: page.title for name, page in pages.items()}
    for name, page in pages.items():
        write(path.with_name(name), page, titles)
        yield path.with_name(name)


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
    environment.filters |= {"rows": rows_of, "png": _base64}
    template = environment.get_template("page.html.jinja")
    html = template.render(page=page, pages=pages or {}, file_name=path.name)
    try:
        files.write_text(path, html)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None


def _of_study(study: str, runs: Sequence[Run], test: Path) -> Page:
    """The page of a study: its notes and picture, and the runs that no other sums up."""
    module = import_module(f"refashion.studies.{study}")
    return of(
        side_by_side.of(run for run in runs if run.record.parent is None),
        test,
        title=module.TITLE,
        notes=module.NOTES,
        figures={module.TITLE: PICTURES[study](runs)},
    )


def _of_explanation(explanation: explained.Explanation) -> Page:
    """The page that explains softmax and cross-entropy."""
    title = "Softmax and cross-entropy"
    figures = {f"{title}: losses, gradients and information": explained.picture(explanation)}
    return Page(
        title=title,
        notes=explained.NOTES,
        tables=list(explained.tables(explanation)),
        sections=[Section(title="In pictures", figures=figures)],
    )


def _section(name: str, run: Run, test: Path) -> Section:
    """The pictures of one run, and a note if some are missing."""
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
