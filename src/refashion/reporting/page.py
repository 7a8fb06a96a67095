"""HTML pages of runs side by side, which hold their pictures and load nothing."""

import sys
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import jinja2
from matplotlib.figure import Figure
from rich.table import Table

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run, studies, sweeps
from refashion.pictures.figures import png
from refashion.pictures.points import text
from refashion.reporting import explained, side_by_side
from refashion.reporting.side_by_side import MANY, Comparison
from refashion.reporting.tables import headings, rows_of, table, tables
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.studies import sweep
from refashion.tracking import context, view


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Content of a page or of a section in it, from top to bottom."""

    title: str
    notes: Sequence[str]
    """Paragraphs."""
    figures: Sequence[Figure]
    """Their titles are their alternative texts."""
    tables: Sequence[Table] = ()
    sections: Sequence["Page"] = ()


def of(
    comparison: Comparison,
    test: Path,
    *,
    title: str | None = None,
    notes: Iterable[str] = (),
    figures: Sequence[Figure] | None = None,
) -> Page:
    """The page of runs side by side: notes, tables, pictures of all together and of each run.

    `test` is the folder of the test images, and `notes` introduces the runs. `figures` are the
    pictures of all runs together; by default those of a sweep. `UserError` for a damaged file.
    """
    runs = comparison.runs if len(comparison.runs) <= MANY else {}
    sections = (_section(name, run, test) for name, run in runs.items())
    return Page(
        title=title or f"{comparison.shared['data.dataset']}: runs side by side",
        notes=[*notes, *comparison.notes],
        figures=_sweep(comparison) if figures is None else figures,
        tables=[*tables(comparison), *_origins(comparison)],
        sections=[section for section in sections if section.figures],
    )


def write_all(workspace: Workspace, path: Path) -> Iterator[Path]:
    """Write the variants' page to `path`; those of studies, sweeps and the explanation beside it.

    What has not run in this workspace has no page, and neither has the explanation if the
    model or the test images are missing. Yields each page when it is written; `UserError` if a
    result is missing, or nothing can be written there.
    """
    _refuse_place(path)
    variants = listing.variants(workspace)
    if not variants:
        raise UserError(f"{workspace.params_file.name}: has no variants; name one to show it")
    pages = {"": of(side_by_side.of(variants), workspace.test, title="Variants")}
    for study in dict.fromkeys([*studies.PICTURES, *listing.studies(workspace)]):
        runs = listing.of_study(workspace, study)
        if figures := studies.draw(study, runs):
            pages[f"-{study}"] = _of_study(study, runs, figures.values(), workspace.test)
    try:
        variant, classes = explained.explain(workspace)
        pages["-explained"] = Page(
            title="Softmax and cross-entropy",
            notes=explained.NOTES,
            figures=[explained.picture(variant, classes)],
            tables=[*explained.tables(variant, classes)],
        )
    except UserError as error:
        print(f"softmax and cross-entropy are not explained: {error}", file=sys.stderr)
    origin = stamp(workspace)
    by_path = {path.with_stem(f"{path.stem}{name}"): page for name, page in pages.items()}
    titles = {file.name: page.title for file, page in by_path.items()}
    for file, page in by_path.items():
        write(file, page, origin, titles)
        yield file


def stamp(workspace: Workspace) -> str:
    """When a page is written, and from which commit; `UserError` if git refuses to tell."""
    checkout = context.gather(workspace.root)
    commit = f" from commit {checkout.commit[:12]}" if checkout.commit else ""
    changes = " with uncommitted changes" if checkout.dirty else ""
    return f"Written on {datetime.now(UTC):%Y-%m-%d at %H:%M} UTC{commit}{changes}."


def write(path: Path, page: Page, origin: str, pages: Mapping[str, str] | None = None) -> None:
    """Write a page to `path`, with its `stamp`; `UserError` if no file can be written there.

    It links to the others of `pages`, which are titles by file name.
    """
    _refuse_place(path)
    template = jinja2.Template(
        Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    shown = {"page": page, "origin": origin, "pages": pages or {}, "file_name": path.name}
    html = template.render(shown, rows=rows_of, png=lambda figure: b64encode(png(figure)).decode())
    try:
        files.refuse_special(path)
        files.write_text(path.resolve(), html)  # a link stays one
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; name a file that can be written") from None


def _refuse_place(path: Path) -> None:
    """Raise `UserError` for a name that no file of a page can have."""
    if not path.name or not path.name.isprintable():
        raise UserError(f"{str(path)!r}: is no name for a file; name one, as page.html")


def _of_study(study: str, runs: Sequence[Run], figures: Iterable[Figure], test: Path) -> Page:
    """The page of a study: its notes and pictures, and the runs that no other sums up.

    That of a sweep has the trials too, the best first.
    """
    whole = [run for run in runs if run.record.parent is None]
    trials: list[Table] = []
    if study in studies.PICTURES:
        module = import_module(f"refashion.studies.{study}")
        title, notes = module.TITLE, module.NOTES
    else:
        title, notes = f"Sweep {study}", [*sweep.NOTES, *map(view.summary, whole)]
        comparison = side_by_side.of(run for run in runs if run.record.parent)
        trials += tables(comparison)
    page = of(side_by_side.of(whole), test, title=title, notes=notes, figures=list(figures))
    return replace(page, tables=[*trials, *page.tables])


def _section(name: str, run: Run, test: Path) -> Page:
    """The pictures of one run, and a note if some are missing."""
    figures = of_run.of_files(run, test)
    notes = []
    if run.has("predictions.csv") and "predictions" not in figures:
        notes.append(
            "Its predictions are not shown in pictures: the test images of this checkout, in "
            "data/prepared/test, are not those that it was measured on."
        )
    elif run.has("predictions.csv") and "confident_mistakes" not in figures:
        notes.append("It makes no mistake on the test set.")
    return Page(title=name, notes=notes, figures=list(figures.values()))


def _sweep(comparison: Comparison) -> list[Figure]:
    """Pictures of several runs together: metrics by what differs, and learning curves.

    Of runs that have no headline metric, the first two are drawn.
    """
    if len(comparison.runs) == 1:
        return []
    labels = headings(run.metrics for run in comparison.runs.values())
    names = [name for name in view.HEADLINES if name in labels] or [*labels][:2]
    shown = {name: labels[name] for name in names}
    return [*sweeps.draw(comparison.points, comparison.best, shown).values()]


def _origins(comparison: Comparison) -> Iterator[Table]:
    """Tables of the settings of all runs, and of their ids and digests."""
    shared = ((name, text(value)) for name, value in comparison.shared.items())
    yield table("Settings of all runs", ("setting", "value"), shared)
    known = bool(comparison.ids)
    header, rows = ["run", *["MLflow run", "commit"] * known, "run key", "weights"], []
    for name, run in comparison.runs.items():
        origin = [comparison.ids.get(name, "-"), (run.commit or "-")[:12]] * known
        rows.append([name, *origin, run.record.run_key, run.record.outputs["weights"]])
    yield table("Ids and digests", header, rows)
