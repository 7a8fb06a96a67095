"""All pages of a workspace, linked to each other."""

import sys
from collections.abc import Iterator
from pathlib import Path

from refashion.base import params, paths
from refashion.base.errors import UserError
from refashion.reporting import explained, page, side_by_side, studies
from refashion.tracking import figures
from refashion.tracking.results import Results

EXPLAINED = "explained"


def write(path: Path) -> Iterator[Path]:
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
    titles = {name: studies.TITLES[name] for name in studies.TITLES if _has_run(name)}
    if found := _explanation():
        titles[EXPLAINED] = "Softmax and cross-entropy"
    beside = {name: path.with_name(f"{path.stem}-{name}{path.suffix}") for name in titles}
    others = {beside[name].name: title for name, title in titles.items()}
    links = {path.name: "Variants", **others}
    variants = [Results(root=paths.ROOT, variant=v) for v in params.load().variants]
    page.write(side_by_side.of(variants), path, others)
    yield path
    for name, file in beside.items():
        if name == EXPLAINED:
            assert found is not None
            picture = page.picture(titles[name], figures.png(explained.picture(found)))
            page.render(
                file,
                title=titles[name],
                links=links,
                notes=explained.NOTES,
                tables=explained.tables(found),
                sections=[f"<section>{picture}</section>"],
            )
        else:
            studies.write(paths.ROOT, name, file, links)
        yield file


def _has_run(study: str) -> bool:
    return paths.study_record(study).exists()


def _explanation() -> explained.Explained | None:
    try:
        return explained.explain(None)
    except UserError as error:
        print(f"softmax and cross-entropy are not explained: {error}", file=sys.stderr)
        return None
