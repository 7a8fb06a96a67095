"""Publish results to MLflow, each once: an index of what the repository and DVC's cache hold."""

import os
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from refashion.base.errors import UserError
from refashion.tracking import contents
from refashion.tracking.context import Context
from refashion.tracking.results import ArmResults, Results
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run

COMPLETE = "complete"
"""Last tag that a publication sets; until then it tells who is publishing, and since when."""

PATIENCE = 600
"""Seconds after which an unfinished publication of another machine counts as abandoned."""

ATTEMPTS = 10
"""Of a request that a rival can make fail."""

BATCH = 500
"""Metrics to send at once: a server takes 1,000 in a request, and 1 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """How a result got into MLflow."""

    variant: str
    """Name of the variant."""

    run_id: str
    """The run that holds the result."""

    outcome: Literal["published", "already there", "measured anew", "divergence"]
    """``measured anew``: there, but its evaluation has changed; ``divergence``: published beside
    another result of the same run key."""

    divergence_of: str | None
    """The run of the same key whose training came out differently."""


def publish(
    results: Results, context: Context, store: Store, parent: str | None = None
) -> Publication:
    """Publish one result, unless MLflow has it.

    Same run key and same outputs of the training: nothing changes, but the name of a further DVC
    experiment is added to the tag ``dvc_exp``, and metrics, files and pictures of an evaluation
    that has changed replace the former ones. Same key and other outputs: a run of its own, with
    the tag ``divergence_of``. What a publisher that was killed left half done is deleted.

    Parameters
    ----------
    results : Results
        What the pipeline has left.
    context : Context
        Where it comes from.
    store : Store
        Where it goes.
    parent : str, optional
        Id of the run that a new one belongs under.

    Returns
    -------
    Publication
        The run, and what became of it.

    Raises
    ------
    UserError
        If a result is missing, or the experiment was deleted in MLflow.
    """
    key, result = results.record["run_key"], results.outputs_digest
    with store.exclusive:
        experiment = _experiment(results.experiment, store)
        complete, abandoned = _find(experiment, key, store)
        for run in abandoned:
            store.client.delete_run(run.info.run_id)
        same = [run for run in complete if run.data.tags["result"] == result]
        if same:
            return _confirm(same[0], results, context, store)
        divergence_of = complete[0].info.run_id if complete else None
        tags = {"divergence_of": divergence_of, "mlflow.parentRunId": parent}
        run_id = _create(experiment, tags, results, context, store)
        if store.lock is None:
            winner = _settle(experiment, key, result, store)
            if winner.info.run_id != run_id:
                return _confirm(winner, results, context, store)
    return Publication(
        variant=results.variant,
        run_id=run_id,
        outcome="divergence" if divergence_of else "published",
        divergence_of=divergence_of,
    )


def publish_all(
    everything: Iterable[Results], context: Context, store: Store
) -> Iterator[Publication]:
    """Publish results one by one, those of folds under the run that sums them up.

    Raises
    ------
    UserError
        As `publish`.
    """
    runs: dict[str, str] = {}
    for results in everything:
        parent = runs.get(results.parent) if results.parent else None
        done = publish(results, context, store, parent)
        runs[results.variant] = done.run_id
        yield done


def _experiment(name: str, store: Store) -> str:
    """Return the id of an experiment, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    found = store.client.get_experiment_by_name(name)
    if found is None:
        location = store.artifacts and f"{store.artifacts}/{name}"
        try:
            return store.client.create_experiment(name, location)
        except MlflowException:
            found = store.client.get_experiment_by_name(name)
            if found is None:  # no other publisher was faster
                raise
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"experiment {name!r}: was deleted in MLflow; bring it back with "
            f"`MLFLOW_TRACKING_URI={store.uri} mlflow experiments restore "
            f"-x {found.experiment_id}`, then run `dvc repro track`"
        )
    return found.experiment_id


def _find(experiment: str, key: str, store: Store) -> "tuple[list[Run], list[Run]]":
    """Find the complete runs of a key, oldest first, and the abandoned ones."""
    found = store.client.search_runs([experiment], f"tags.run_key = '{key}'")
    runs = [(run, run.data.tags["published"]) for run in found if "published" in run.data.tags]
    complete = [run for run, state in runs if state == COMPLETE]
    # Who holds the lock is alone: whatever is unfinished then, nobody will finish.
    abandoned = [
        run for run, state in runs if state != COMPLETE and (store.lock or _abandoned(state))
    ]
    return sorted(complete, key=lambda r: (r.info.start_time, r.info.run_id)), abandoned


def _abandoned(publisher: str) -> bool:
    """Tell whether a publication with this mark will never be finished."""
    host, pid, since = publisher.rsplit(" ", 2)
    if time.time() - int(since) > PATIENCE:
        return True
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(pid) == os.getpid()  # what this process began before, it has given up


def _settle(experiment: str, key: str, result: str, store: Store) -> "Run":
    """Leave one of the runs that parallel publishers made of one result.

    Each of them looks when its own run is complete, keeps the first in an order that is the same
    for all and deletes the rest: after the last look there is exactly one.
    """
    client = store.client
    complete, abandoned = _find(experiment, key, store)
    for run in abandoned:  # such as a run whose making was asked for twice on a slow network
        client.delete_run(run.info.run_id)
    winner, *others = [run for run in complete if run.data.tags["result"] == result]
    for run in others:
        client.delete_run(run.info.run_id)
        # Read when nobody can add to it any more.
        names = experiments(client.get_run(run.info.run_id))
        _add_experiments(winner.info.run_id, names, store)
    return winner


def _confirm(run: "Run", results: Results, context: Context, store: Store) -> Publication:
    """Bring a run up to date that holds this very training."""
    run_id, client = run.info.run_id, store.client
    stale = run.data.tags["evaluation"] != results.evaluation_digest
    if stale:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as pictures:
            contents.write_evaluation(results, Path(folder))
            contents.draw(results, Path(pictures))
            client.log_artifacts(run_id, folder)
            client.log_artifacts(run_id, pictures, "figures")
        client.log_batch(run_id, metrics=contents.evaluation_metrics(results, time.time()))
        client.set_tag(run_id, "evaluation", results.evaluation_digest)
    # An arm that an experiment has not changed is not one of its results.
    if context.experiment and not isinstance(results, ArmResults):
        _add_experiments(run_id, [context.experiment], store)
    return Publication(
        variant=results.variant,
        run_id=run_id,
        outcome="measured anew" if stale else "already there",
        divergence_of=run.data.tags.get("divergence_of"),
    )


def experiments(run: "Run") -> list[str]:
    """Names of the DVC experiments that came to this run."""
    return [name for name in run.data.tags.get("dvc_exp", "").split(",") if name]


def _add_experiments(run_id: str, names: list[str], store: Store) -> None:
    # Look again after writing: somebody else may have added a name in between.
    while new := set(names) - set(there := experiments(store.client.get_run(run_id))):
        both = ",".join([*there, *sorted(new)])
        _despite_rivals(store.client.set_tag, run_id, "dvc_exp", both)


def _despite_rivals(request: Callable[..., object], *arguments: object) -> None:
    """Ask again when another publisher has just written the row that a server was about to."""
    from mlflow.exceptions import MlflowException

    for attempt in range(ATTEMPTS):
        try:
            request(*arguments)
            return
        except MlflowException as error:
            if "IntegrityError" not in str(error) or attempt == ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0, 0.1))


def _create(
    experiment: str,
    further: Mapping[str, str | None],
    results: Results,
    context: Context,
    store: Store,
) -> str:
    """Make a run and all it carries; its last tag says that nothing is missing."""
    client, now = store.client, time.time()
    start, end = contents.times(results, now)
    tags = {
        **contents.tags(results, context),
        "run_key": results.record["run_key"],
        "result": results.outputs_digest,
        "evaluation": results.evaluation_digest,
        "published": f"{socket.gethostname()} {os.getpid()} {now:.0f}",
        **{name: value for name, value in further.items() if value},
    }
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as pictures:
        contents.write_training(results, context, Path(folder))
        contents.write_evaluation(results, Path(folder))
        contents.draw(results, Path(pictures))
        # Whatever of the results is missing or broken has been found by now.
        metrics = contents.training_metrics(results, now) + contents.evaluation_metrics(
            results, now
        )
        run = client.create_run(
            experiment,
            start_time=round(start * 1000),
            tags=tags,
            run_name=results.variant.rpartition("/")[2],
        )
        run_id = run.info.run_id
        client.log_batch(run_id, params=contents.params(results))
        for first in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics=metrics[first : first + BATCH])
        _despite_rivals(client.log_inputs, run_id, contents.inputs(results))
        client.log_artifacts(run_id, folder)
        client.log_artifacts(run_id, pictures, "figures")
    client.set_terminated(run_id, end_time=round(end * 1000))
    client.set_tag(run_id, "published", COMPLETE)
    return run_id
