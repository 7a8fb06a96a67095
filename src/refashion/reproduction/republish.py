"""MLflow built anew from what the repository and DVC's cache hold."""

from collections.abc import Collection, Iterable, Iterator

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import worktree
from refashion.reproduction.worktree import State
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.tracking import context, publish
from refashion.tracking.context import Context
from refashion.tracking.store import Store


def republish(
    store: Store, workspace: Workspace, names: Collection[str] = ()
) -> Iterator[dict[str, str]]:
    """Publish the workspace's runs, then those of every DVC experiment.

    Parameters
    ----------
    store : Store
        Where to publish.
    workspace : Workspace
        The user's own.
    names : collection of str
        Publish the workspace's runs of these names, and those that sum them up; none: everything.

    Yields
    ------
    dict
        Of every run ``source``: ``workspace`` or the experiment's name; ``outcome``: that of
        `refashion.tracking.publish.Publication`, or ``missing``; ``detail``: its name and id, or
        why it could not be published.

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
    experiments = {} if names else worktree.experiments(workspace.root)
    for name, (commit, baseline) in sorted(experiments.items()):
        changes = ("diff", *context.FORM, baseline, commit, *context.INPUTS)
        origin = Context(
            commit=baseline,
            diff=worktree.git(*changes, folder=workspace.root),
            experiment=name,
            baseline=baseline,
            environment="",
        )
        with worktree.checkout(State(commit=commit), workspace) as checkout:
            test = checkout.relative(checkout.test)
            promised = worktree.promised(checkout)
            files = [path for path in promised if path == test or not path.startswith("data/")]
            worktree.fetch(files, checkout.root)
            try:
                runs = listing.of_pipeline(checkout)
            except UserError as error:
                yield {"source": name, "outcome": "missing", "detail": str(error)}
            else:
                yield from _publish(name, runs, origin, store, checkout)


def _publish(
    source: str, runs: Iterable[Run], origin: Context, store: Store, checkout: Workspace
) -> Iterator[dict[str, str]]:
    whole = []
    for run in runs:
        reason = _missing(run, checkout)
        if reason:
            yield {"source": source, "outcome": "missing", "detail": reason}
        else:
            whole.append(run)
    for done in publish.publish_all(whole, origin, store, checkout):
        detail = f"{done.name}, run {done.run_id}"
        yield {"source": source, "outcome": done.outcome, "detail": detail}


def _missing(run: Run, checkout: Workspace) -> str:
    """Why a run cannot be published; empty, if it can be."""
    folders = {checkout.relative(folder) for folder in run.folders}
    for path in worktree.promised(checkout):
        of_run = path in folders or path.rpartition("/")[0] in folders
        if of_run and not (checkout.root / path).exists():
            return f"{path}: neither here nor in DVC's cache"
    return "" if run.has("record.json") else f"{run.title}: its record.json is missing"
