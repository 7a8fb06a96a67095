"""MLflow built anew from what the repository and DVC's cache hold."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from refashion import studies
from refashion.base import params, paths
from refashion.reproduction import worktree
from refashion.reproduction.worktree import State
from refashion.tracking import context, publish
from refashion.tracking.context import Context
from refashion.tracking.publish import Publication
from refashion.tracking.results import Results, everything
from refashion.tracking.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Results that could not be published."""

    reason: str


def republish(store: Store) -> Iterator[tuple[str, Publication | Missing]]:
    """Publish the workspace's results, then those of every DVC experiment.

    Yields
    ------
    tuple
        Where a result comes from (``workspace`` or an experiment's name), and what became of it.
    """
    yield from _publish(
        "workspace",
        everything(paths.ROOT, params.load().variants, studies.NAMES),
        context.gather(paths.ROOT),
        store,
    )
    for name, (commit, baseline) in sorted(worktree.experiments().items()):
        origin = Context(
            commit=baseline,
            diff=_changes(baseline, commit),
            experiment=name,
            baseline=baseline,
            environment="",
        )
        with worktree.checkout(State(commit=commit)) as root:
            variants = params.load(root / "params.yaml").variants
            found = everything(root, variants)
            worktree.fetch([paths.TEST, *(file for one in found for file in one.cached)], root)
            yield from _publish(name, found, origin, store)


def _publish(
    source: str, found: Iterable[Results], origin: Context, store: Store
) -> Iterator[tuple[str, Publication | Missing]]:
    whole = []
    for results in found:
        needed = (*results.training_files, *results.cached)
        missing = [path for path in needed if not results.has(path)]
        if missing:
            file = missing[0].relative_to(paths.ROOT)
            yield source, Missing(reason=f"{file}: neither here nor in DVC's cache")
        else:
            whole.append(results)
    for done in publish.publish_all(whole, origin, store):
        yield source, done


def _changes(baseline: str, commit: str) -> bytes:
    """What an experiment changed, in the form in which a workspace's changes are kept."""
    return worktree.git("diff", *context.FORM, baseline, commit, *context.INPUTS)
