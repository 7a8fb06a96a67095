"""MLflow built anew from what the repository and DVC's cache hold."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import lockfile, pipeline, revisions, worktree
from refashion.reproduction.worktree import State
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.tracking import context, marks, publish, published
from refashion.tracking.context import Context
from refashion.tracking.store import Store


def republish(
    store: Store, workspace: Workspace, names: Collection[str] = ()
) -> Iterator[dict[str, str]]:
    """Publish the workspace's runs, then those of every DVC experiment.

    With names, the workspace's runs of these names alone, and those that sum them up.

    Yields
    ------
    dict
        Of every run ``source``: ``workspace`` or the experiment's name; ``outcome``: that of
        `refashion.tracking.publish.Publication`, or ``missing``; ``detail``: its name and id, or
        why it could not be published; ``parent``: the name of the run that sums it up, if one
        does. Then, in the checkout's own database, the published runs of
        experiments that DVC no longer has: ``removed``.

    Raises
    ------
    UserError
        If the workspace has no run of a name.
    """
    runs = [listing.find(workspace, name) for name in names]
    parents = [listing.find(workspace, run.record.parent) for run in runs if run.record.parent]
    runs = [*parents, *runs] or listing.everything(workspace)
    origin = context.gather(workspace.root)
    yield from _publish("workspace", runs, origin, store, workspace)
    is_all = not names and origin.commit is not None
    experiments = revisions.experiments(workspace.root) if is_all else {}
    for name, (commit, baseline) in sorted(experiments.items()):
        changes = ("diff", *context.FORM, baseline, commit, *context.INPUTS)
        origin = Context(
            commit=baseline,
            diff=revisions.git(*changes, folder=workspace.root),
            experiment=name,
            baseline=baseline,
            environment="",
        )
        with ExitStack() as stack:
            try:
                checkout = stack.enter_context(worktree.checkout(State(commit=commit), workspace))
                pipeline.fetch_results(checkout, checkout.relative(checkout.test))
                runs = _of_experiment(checkout, baseline)
            except UserError as error:
                yield {"source": name, "outcome": "missing", "detail": str(error)}
            else:
                yield from _publish(name, runs, origin, store, checkout)
    if store.is_own and is_all:  # a server has the experiments of others too
        known = {*experiments, *(name.partition("@")[0] for name in experiments)}
        with store.lock:
            for run in published.complete(store):
                removed = [name for name in marks.experiments(run) if name not in known]
                if removed:
                    marks.mark(run, removed, marks.REMOVED, store.client)
                detail = f"{run.data.tags.get('name')}, run {run.info.run_id}"
                yield from ({"source": n, "outcome": "removed", "detail": detail} for n in removed)


def _of_experiment(checkout: Workspace, baseline: str) -> list[Run]:
    """Runs of the pipeline, and those of sweeps and k-folds that are not its baseline's."""
    of_pipeline = listing.of_pipeline(checkout)
    others = [run for run in listing.everything(checkout) if run not in of_pipeline]
    own = [run for run in others if not context.unchanged(run.file("record.json"), baseline)]
    return [*of_pipeline, *own]


def _publish(
    source: str, runs: Iterable[Run], origin: Context, store: Store, checkout: Workspace
) -> Iterator[dict[str, str]]:
    outputs = lockfile.outputs(lockfile.read(checkout.root / "dvc.lock"))
    absent = [path for path in outputs if not (checkout.root / path).exists()]
    complete = []
    for run in runs:
        folders = {checkout.relative(folder) for folder in run.folders}
        reasons = [
            f"{path}: neither here nor in DVC's cache"
            for path in absent
            if path in folders or path.rpartition("/")[0] in folders
        ]
        if not run.has("record.json"):
            reasons.append(f"{run.title}: its record.json is missing")
        if reasons:
            yield {"source": source, "outcome": "missing", "detail": reasons[0]}
        else:
            complete.append(run)
    for done in publish.publish_all(complete, origin, store, checkout):
        detail = f"{done.name}, run {done.run_id}"
        row = {"source": source, "outcome": done.outcome, "detail": detail}
        yield row | ({"parent": done.parent} if done.parent else {})
