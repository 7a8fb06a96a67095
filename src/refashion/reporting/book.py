"""All pages of a workspace, linked to each other."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures.studies import PICTURES
from refashion.reporting import explained, page, side_by_side
from refashion.reporting.page import Page
from refashion.runs import listing


def write(workspace: Workspace, path: Path) -> Iterator[Path]:
    """Write the variants' page to `path`, and those of studies and the explanation beside it.

    A study that has not run in this workspace has no page, and nothing is explained where the
    model or the test images are missing.

    Yields
    ------
    Path
        Every page, when it is written.

    Raises
    ------
    UserError
        If a result is missing, or nothing can be written there.
    """
    variants = side_by_side.of(listing.variants(workspace))
    pages = {path: page.of(variants, workspace.test, title="Variants")}
    for study in PICTURES:
        if listing.of_study(workspace, study):
            pages[_beside(path, study)] = _of_study(workspace, study)
    try:
        explanation = explained.explain(workspace)
    except UserError as error:
        print(f"softmax and cross-entropy are not explained: {error}", file=sys.stderr)
    else:
        pages[_beside(path, "explained")] = explained.page(explanation)
    titles = {file.name: shown.title for file, shown in pages.items()}
    for file, shown in pages.items():
        page.write(file, shown, titles)
        yield file


def _of_study(workspace: Workspace, study: str) -> Page:
    """The page of a study: its own words, and the runs that sum up others."""
    runs, module = listing.of_study(workspace, study), import_module(f"refashion.studies.{study}")
    return page.of(
        side_by_side.of(run for run in runs if run.record.parent is None),
        workspace.test,
        title=module.TITLE,
        notes=module.NOTES,
        figures={module.TITLE: PICTURES[study](runs)},
    )


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}-{name}{path.suffix}")
