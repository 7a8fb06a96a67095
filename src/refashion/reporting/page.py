"""HTML pages of runs side by side, which hold their pictures and load nothing."""

import base64
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from rich.table import Table

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run, sweeps
from refashion.pictures.figures import png
from refashion.pictures.studies import PICTURES
from refashion.reporting import explained, side_by_side
from refashion.reporting.explained import ClassInformation
from refashion.reporting.side_by_side import MANY, Comparison
from refashion.reporting.tables import headings, rows_of, tables
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.tracking import context

DRAWN = ("test_accuracy", "test_cross_entropy_nats")
"""Metrics to draw against the settings; of runs that have neither, the first two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Content of a page or of a section in it, from top to bottom."""

    title: str
    notes: Sequence[str]
    """Paragraphs."""
    figures: Mapping[str, Figure]
    """By their alternative text."""
    tables: Sequence[Table] = ()
    sections: Sequence["Page"] = ()


def of(
    comparison: Comparison,
    test: Path,
    *,
    title: str | None = None,
    notes: Iterable[str] = (),
    figures: Mapping[str, Figure] | None = None,
) -> Page:
    """The page of runs side by side: notes, tables, pictures of all together and of each run.

    `test` is the folder of the test images, and `notes` introduces the runs. `figures` are the
    pictures of all runs together, by their alternative text; by default those of a sweep.

    Raises
    ------
    UserError
        If a run's file is damaged.
    """
    runs = comparison.runs if len(comparison.runs) <= MANY else {}
    sections = (_section(name, run, test) for name, run in runs.items())
    return Page(
        title=title or f"{comparison.dataset}: runs side by side",
        notes=[*notes, *comparison.notes],
        figures=_sweep(comparison) if figures is None else figures,
        tables=[*tables(comparison), _shared(comparison), _digests(comparison)],
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
        pages[f"{path.stem}-explained{path.suffix}"] = _of_explanation(*explanation)
    titles, origin = {name: page.title for name, page in pages.items()}, stamp(workspace)
    for name, page in pages.items():
        write(path.with_name(name), page, origin, titles)
        yield path.with_name(name)


def stamp(workspace: Workspace) -> str:
    """When a page is written, and the commit of the workspace it is written from.

    Raises
    ------
    UserError
        If git refuses to read the repository.
    """
    checkout = context.gather(workspace.root)
    commit = f" from commit {checkout.commit[:12]}" if checkout.commit else ""
    changes = " with uncommitted changes" if checkout.dirty else ""
    return f"Written on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC{commit}{changes}."


def write(path: Path, page: Page, origin: str, pages: Mapping[str, str] | None = None) -> None:
    """Write a page to `path`, with its `stamp`.

    It links to the others of `pages`, which are titles by file name.

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
    html = template.render(page=page, origin=origin, pages=pages or {}, file_name=path.name)
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


def _of_explanation(variant: str, classes: Sequence[ClassInformation]) -> Page:
    """The page that explains softmax and cross-entropy."""
    title = "Softmax and cross-entropy"
    return Page(
        title=title,
        notes=explained.NOTES,
        figures={f"{title}: losses and information": explained.picture(variant, classes)},
        tables=list(explained.tables(variant, classes)),
    )


def _section(name: str, run: Run, test: Path) -> Page:
    """The pictures of one run, and a note if some are missing."""
    drawn = of_run.of_files(run, test)
    notes = []
    if run.has("predictions.csv") and "predictions" not in drawn:
        notes.append(
            "Its predictions are not shown in pictures: the test images of this checkout, in "
            "data/prepared/test, are not those that it was measured on."
        )
    elif run.has("predictions.csv") and "confident_mistakes" not in drawn:
        notes.append("It makes no mistake on the test set.")
    figures = {f"{name}: {what.replace('_', ' ')}": figure for what, figure in drawn.items()}
    return Page(title=name, notes=notes, figures=figures)


def _sweep(comparison: Comparison) -> dict[str, Figure]:
    """Pictures of several runs together: metrics by what differs, and learning curves."""
    labels = headings(run.metrics for run in comparison.runs.values())
    drawn = [name for name in DRAWN if name in labels] or list(labels)[:2]
    several = len(comparison.runs) > 1
    return sweeps.draw(comparison.points, {n: labels[n] for n in drawn}) if several else {}


def _shared(comparison: Comparison) -> Table:
    table = Table("setting", "value", title="Settings of all runs")
    for name, value in comparison.shared.items():
        table.add_row(name, sweeps.text(value))
    return table


def _digests(comparison: Comparison) -> Table:
    known = bool(comparison.ids)
    columns = ["run", *["MLflow run", "commit"] * known, "run key", "weights"]
    table = Table(*columns, title="Ids and digests")
    for name, run in comparison.runs.items():
        origin = [comparison.ids.get(name, "-"), (run.commit or "-")[:12]] * known
        table.add_row(name, *origin, run.record.run_key, run.record.outputs["weights"])
    return table


def _base64(figure: Figure) -> str:
    return base64.b64encode(png(figure)).decode()
