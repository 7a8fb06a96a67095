"""All pages of a workspace, linked to each other."""

from collections.abc import Iterator
from pathlib import Path

from refashion import params, paths
from refashion.reporting import explained, page, side_by_side, studies
from refashion.tracking import figures
from refashion.tracking.results import Results

EXPLAINED = "explained"


def write(path: Path) -> Iterator[Path]:
    """Write the variants' page to `path`, and those of studies and the explanation beside it.

    A study that has not run in this workspace has no page.

    Yields
    ------
    Path
        Every page, when it is written.

    Raises
    ------
    UserError
        If a result is missing, or nothing can be written there.
    """
    ran = [name for name in studies.TITLES if paths.study_record(name).exists()]
    beside = {
        name: path.with_name(f"{path.stem}-{name}{path.suffix}") for name in (*ran, EXPLAINED)
    }
    titles = {**studies.TITLES, EXPLAINED: "Softmax and cross-entropy"}
    links = {path.name: "Variants", **{file.name: titles[n] for n, file in beside.items()}}
    variants = [Results(root=paths.ROOT, variant=v) for v in params.load().variants]
    others = {target: text for target, text in links.items() if target != path.name}
    page.write(side_by_side.of(variants), path, others)
    yield path
    for name in ran:
        studies.write(paths.ROOT, name, beside[name], links)
        yield beside[name]
    found = explained.explain(None)
    picture = page.picture(titles[EXPLAINED], figures.png(explained.picture(found)))
    page.render(
        beside[EXPLAINED],
        title=titles[EXPLAINED],
        links=links,
        notes=explained.NOTES,
        tables=explained.tables(found),
        sections=[f"<section>{picture}</section>"],
    )
    yield beside[EXPLAINED]
