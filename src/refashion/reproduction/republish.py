"""MLflow built anew from what the repository and DVC's cache hold."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from refashion import params, paths
from refashion.reproduction import worktree
from refashion.reproduction.worktree import State
from refashion.tracking import context, publish
from refashion.tracking.context import Context
from refashion.tracking.publish import Publication
from refashion.tracking.results import Results
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
        "workspace", paths.ROOT, params.load().variants, context.gather(paths.ROOT), store
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
            of = (paths.weights, paths.predictions)
            files = [path(variant) for variant in variants for path in of]
            worktree.fetch([paths.TEST, *files], root)
            yield from _publish(name, root, variants, origin, store)


def _publish(
    source: str, root: Path, variants: Iterable[str], origin: Context, store: Store
) -> Iterator[tuple[str, Publication | Missing]]:
    for variant in variants:
        results = Results(root=root, variant=variant)
        needed = (paths.record(variant), paths.weights(variant), paths.predictions(variant))
        missing = [path for path in needed if not results.has(path)]
        if missing:
            file = missing[0].relative_to(paths.ROOT)
            yield source, Missing(reason=f"{file}: neither here nor in DVC's cache")
        else:
            yield source, publish.publish(results, origin, store)


def _changes(baseline: str, commit: str) -> bytes:
    """What an experiment changed, in the form in which a workspace's changes are kept."""
    return worktree.git("diff", *context.FORM, baseline, commit, *context.INPUTS)
