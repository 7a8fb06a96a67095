"""Publish runs to MLflow, each once: an index of what the repository and DVC's cache hold."""

import json
import os
import socket
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.progress import progress
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.tracking import contents, logged_model, view
from refashion.tracking.context import Context, committed, unchanged
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PUBLISHED = "refashion.published"
"""The tag that tells who is publishing, and since when; at last it is `COMPLETE`."""

COMPLETE = "complete"

RESULT, EVALUATION = "refashion.result", "refashion.evaluation"
"""The tags with the digests of what the training left, and of what was measured after it."""

DIGESTS = "digests.json"
"""The artifact with the digests of all others, and the tags that the run was published with."""

OF_DIGESTS = "refashion.digests"
"""The tag with that artifact's own digest."""

OF_EXPERIMENT, THERE, REMOVED = "refashion.dvc_exp.", "there", "removed"
"""Begins the tag of each DVC experiment that came to the run, and what it says of that one now."""

PATIENCE = 600
"""Seconds after which an unfinished publication of another machine counts as abandoned."""

PARENT = "mlflow.parentRunId"
"""The tag with the id of the run that sums this one up, under which MLflow's pages show it."""

BATCH = 500
"""Metrics to send at once: a server takes 1,000 in a request, and 1 MB."""

MANY = 100
"""Of more runs, a bar or lines in a log tell how many are done."""

Outcome = Literal["published", "already there", "measured anew", "divergence"]
"""``measured anew``: there, but its evaluation has changed; ``divergence``: published beside
another result of the same run key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """How a run got into MLflow."""

    name: str  # of the run: the variant's, or ``STUDY/NAME``
    run_id: str  # MLflow's
    outcome: Outcome
    divergence_of: str | None  # id of the run with the same key that came out differently
    parent: str | None  # name of the run that sums it up


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """Where a run belongs in MLflow."""

    experiment_id: str
    parent_id: str | None  # of the run that sums it up
    swept: Sequence[str]  # settings that differ among the runs that are summed up with it, or by it


def publish_all(
    runs: Sequence[Run], context: Context, store: Store, workspace: Workspace
) -> Iterator[Publication]:
    """Publish runs that MLflow does not have, one by one; one that sums up others before them.

    Those others become its child runs, unless they are there already, under a parent that is, too.

    Same run key and same outputs of the training: nothing changes, but the name of a further DVC
    experiment is added to the tag ``dvc_exp``, and metrics, files and pictures of an evaluation
    that has changed replace the former ones. Same key and other outputs: a run of its own, with
    the tag ``divergence_of``. What a publisher that was killed left half done is deleted.

    A DVC experiment's results are the runs whose record is not that of its baseline: its name is
    added to no others.

    On this machine a lock lets one publisher in at a time. Publishers that share a server leave to
    the end what another one is publishing. Still they may publish a run twice: each looks again
    when its own is complete, and the oldest stays.

    Raises
    ------
    UserError
        If a file of a run is missing or altered, or the experiment was deleted in MLflow.
    """
    experiments: dict[str, str] = {}
    swept: dict[str, dict[str, list[str]]] = {}
    ids: dict[str, str] = {}

    def publish(run: Run, *, may_wait: bool = False) -> Publication | None:
        study, name, parent = run.name.partition("/")[0], run.record.experiment, run.record.parent
        if study not in swept:
            swept[study] = listing.swept(workspace, study)
        differing = swept[study].get(parent or run.name, [])
        if name not in experiments:
            experiments[name] = _experiment(run, differing, store)
        parent_id = ids.get(parent or "")
        place = _Place(experiment_id=experiments[name], parent_id=parent_id, swept=differing)
        done = _publish(run, place, context, store, workspace, may_wait)
        if done:
            ids[run.name] = done.run_id
        return done

    shown = progress("publish", len(runs), "runs") if len(runs) > MANY else nullcontext(None)
    with shown as advance:
        queue = [(run, run.record.parent is not None) for run in runs]
        for run, may_wait in queue:
            if done := publish(run, may_wait=may_wait):
                yield done
                if advance:
                    advance()
            else:
                queue.append((run, False))
    # On a server, a rival's may have replaced a parent after runs were published under it.
    parents = {run.record.parent for run in runs}
    for parent in [run for run in runs if run.name in parents]:
        former = ids[parent.name]
        publish(parent)
        if ids[parent.name] != former:
            for part in [run for run in runs if run.record.parent == parent.name]:
                publish(part)


def _publish(
    run: Run,
    place: _Place,
    context: Context,
    store: Store,
    workspace: Workspace,
    may_wait: bool,
) -> Publication | None:
    """Publish one run, unless MLflow has it; None if it may wait, and another is publishing it."""
    run.refuse_altered()
    if context.baseline and unchanged(run.file("record.json"), context.baseline):
        context = replace(context, experiment=None, baseline=None)
    with store.lock:
        complete, is_underway = _look(run, place.experiment_id, store)
        created = None
        if all(published.data.tags[RESULT] != run.record.result for published in complete):
            if may_wait and is_underway:
                return None
            tags = contents.tags(run, context)
            if complete:
                tags["divergence_of"] = complete[0].info.run_id
            created = _create(place, tags, run, context, store, workspace)
            complete, _ = _look(run, place.experiment_id, store)
        oldest = _keep_oldest(run, place, complete, context, store)
        divergence_of = oldest.data.tags.get("divergence_of")
        outcome: Outcome = "already there"
        if oldest.info.run_id == created:
            outcome = "divergence" if divergence_of else "published"
        elif oldest.data.tags[EVALUATION] != run.measured:
            _measure_anew(oldest, run, store, workspace)
            outcome = "measured anew"
    return Publication(
        name=run.name,
        run_id=oldest.info.run_id,
        outcome=outcome,
        divergence_of=divergence_of,
        parent=run.record.parent,
    )


def digests(published: "MlflowRun", client: "MlflowClient") -> dict[str, dict[str, str]]:
    """The digests of a published run's ``files``, and the ``tags`` that it was published with."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(client.download_artifacts(published.info.run_id, DIGESTS, folder))
        return json.loads(file.read_text(encoding="utf-8"))


def experiments(published: "MlflowRun", state: str = THERE) -> list[str]:
    """Names of the DVC experiments that came to a published run and are there, or were removed."""
    tags = published.data.tags.items()
    marks = [key for key, value in tags if key.startswith(OF_EXPERIMENT) and value == state]
    return sorted(unquote(key.removeprefix(OF_EXPERIMENT).replace(":", "%")) for key in marks)


def _mark_of(experiment: str) -> str:
    """The tag of an experiment; MLflow takes few characters, so others become ``:3D``."""
    return OF_EXPERIMENT + quote(experiment, safe="").replace("~", "%7E").replace("%", ":")


def mark(published: "MlflowRun", names: Collection[str], state: str, store: Store) -> bool:
    """Tell on a published run which DVC experiments are there, or were removed.

    Each name has a tag of its own, for of two who change one tag at a time the first would be
    lost; ``dvc_exp`` and ``dvc_exp_removed`` list them for people. False: it was told before.
    """
    from mlflow.entities import RunTag

    tags = dict.fromkeys(map(_mark_of, names), state)
    for key, listed in (("dvc_exp", THERE), ("dvc_exp_removed", REMOVED)):
        others = set(experiments(published, listed)).difference(names)
        value = ",".join(sorted(others.union(names if state == listed else ())))
        if value or key in published.data.tags:
            tags[key] = value
    if tags.items() <= published.data.tags.items():
        return False
    store.client.log_batch(published.info.run_id, tags=[RunTag(*tag) for tag in tags.items()])
    return True


def _move(published: "MlflowRun", place: _Place, store: Store) -> bool:
    """Put a run under its parent, unless it has one that is there. False: nothing to do."""
    former = published.data.tags.get(PARENT)
    if place.parent_id in (None, former):
        return False
    query = f"attributes.run_id = '{former}'"
    if former and store.client.search_runs([place.experiment_id], query):
        return False
    store.client.set_tag(published.info.run_id, PARENT, place.parent_id)
    return True


def _experiment(run: Run, swept: Sequence[str], store: Store) -> str:
    """Return the id of the run's experiment, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    name, tags = run.record.experiment, view.experiment_tags(run, swept)
    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        location = store.artifacts and f"{store.artifacts}/{name}"
        try:
            return store.client.create_experiment(name, location, tags)
        except MlflowException:
            experiment = store.client.get_experiment_by_name(name)
            if experiment is None:  # no other publisher was faster
                raise
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"experiment {name!r}: was deleted in MLflow; bring it back with "
            f"`MLFLOW_TRACKING_URI={store.uri} mlflow experiments restore "
            f"-x {experiment.experiment_id}`, then run `dvc repro`"
        )
    for key in tags.keys() - experiment.tags.keys():  # what people have changed stays
        store.client.set_experiment_tag(experiment.experiment_id, key, tags[key])
    return experiment.experiment_id


def _look(run: Run, experiment_id: str, store: Store) -> "tuple[list[MlflowRun], bool]":
    """Complete publications of the run's key, oldest first, and whether another is underway.

    Abandoned ones are deleted.
    """
    complete, is_underway, query = [], False, f"tags.run_key = '{run.record.run_key}'"
    for published in store.client.search_runs([experiment_id], query):
        state = published.data.tags.get(PUBLISHED)  # None: somebody else's run
        if state == COMPLETE:
            complete.append(published)
        elif state and _abandoned(state):
            delete(published, store.client)
        elif state:
            is_underway = True
    return sorted(complete, key=lambda r: (r.info.start_time, r.info.run_id)), is_underway


def delete(published: "MlflowRun", client: "MlflowClient") -> None:
    """Delete a publication and its model, unless another publisher has deleted that."""
    from mlflow.exceptions import MlflowException

    for model in logged_model.of_run(published, client):
        try:
            client.delete_logged_model(model.model_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    client.delete_run(published.info.run_id)


def _abandoned(publisher: str) -> bool:
    """Tell whether a publication with this mark will never be finished."""
    host, pid, since = publisher.rsplit(" ", 2)
    if time.time() - int(since) > PATIENCE:
        return True
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:  # without the permission, there is such a process
        return isinstance(error, ProcessLookupError)
    return int(pid) == os.getpid()  # what this process began before, it has given up


def _keep_oldest(
    run: Run, place: _Place, complete: "list[MlflowRun]", context: Context, store: Store
) -> "MlflowRun":
    """Leave one of the complete publications of this run, with the names of all DVC experiments.

    Whoever is the last to look sees all of them, so that in the end there is exactly one. The
    lists of names are looked at again after they were written.
    """
    from mlflow.exceptions import MlflowException

    names = {context.experiment} if context.experiment else set()
    while True:
        same = [p for p in complete if p.data.tags[RESULT] == run.record.result]
        if not same:
            raise UserError(f"{run.title}: its run was deleted in MLflow meanwhile; publish again")
        oldest, *doubles = same
        for double in doubles:
            delete(double, store.client)
            # Read when nobody can add to it any more.
            names.update(experiments(store.client.get_run(double.info.run_id)))
        try:
            if not (_move(oldest, place, store) or mark(oldest, names, THERE, store)):
                return oldest
        except MlflowException:
            if store.client.get_run(oldest.info.run_id).info.lifecycle_stage != "deleted":
                raise
        complete, _ = _look(run, place.experiment_id, store)


def _measure_anew(published: "MlflowRun", run: Run, store: Store, workspace: Workspace) -> None:
    """Replace metrics, files and pictures of a former evaluation of this training."""
    from mlflow.entities import RunTag

    client, run_id = store.client, published.info.run_id
    models = logged_model.of_run(published, client)
    metrics = contents.final_metrics(run, time.time(), models[0].model_id if models else None)
    former = digests(published, client)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents.write_measured(run, workspace, folder)
        digest = _write_digests(folder, former["files"], former["tags"])
        client.log_artifacts(run_id, str(folder))
    tags = [RunTag(EVALUATION, run.measured), RunTag(OF_DIGESTS, digest)]
    client.log_batch(run_id, metrics, tags=tags)


def _create(
    place: _Place,
    tags: Mapping[str, str],
    run: Run,
    context: Context,
    store: Store,
    workspace: Workspace,
) -> str:
    """Make MLflow's run and all it carries; its last tag says that nothing is missing."""
    from mlflow.entities import Param, RunTag

    client, now = store.client, time.time()
    start, end = contents.times(run, now)
    named_by_commit = None if run.record.parent else context.commit
    record = run.file("record.json")
    committed_record = committed(record, named_by_commit) if named_by_commit else b""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents.write_training(run, context, workspace, folder)
        contents.write_measured(run, workspace, folder)
        digest = _write_digests(folder, {}, tags)
        metrics = contents.epoch_metrics(run, now)
        params = [Param(*setting) for setting in contents.params(run).items()]
        # Whatever of the run is missing or broken has been noticed by now.
        run_id = client.create_run(
            place.experiment_id,
            start_time=round(start * 1000),
            tags={
                **tags,
                **({PARENT: place.parent_id} if place.parent_id else {}),
                RESULT: run.record.result,
                EVALUATION: run.measured,
                OF_DIGESTS: digest,
                PUBLISHED: f"{socket.gethostname()} {os.getpid()} {now:.0f}",
            },
            run_name=view.run_name(run, place.swept, committed_record),
        ).info.run_id
        model_id = logged_model.log(run, run_id, place.experiment_id, client)
        metrics += contents.final_metrics(run, now, model_id)
        description = RunTag(view.DESCRIPTION, view.run_description(run, place.swept, run_id))
        client.log_batch(run_id, metrics[:BATCH], params, [description])
        for first in range(BATCH, len(metrics), BATCH):
            client.log_batch(run_id, metrics[first : first + BATCH])
        _log_inputs(run_id, run, store)
        client.log_artifacts(run_id, str(folder))
    client.set_terminated(run_id, end_time=round(end * 1000))
    client.set_tag(run_id, PUBLISHED, COMPLETE)
    return run_id


def _log_inputs(run_id: str, run: Run, store: Store) -> None:
    """Tell of the data sets, again for each that another publisher may have added in between.

    A server looks which ones it has, then adds the others: all, or none if one of them is there.
    """
    from mlflow.exceptions import MlflowException

    datasets = contents.inputs(run)
    for _ in datasets:
        try:
            return store.client.log_inputs(run_id, datasets)
        except MlflowException:
            continue
    return store.client.log_inputs(run_id, datasets)


def _write_digests(folder: Path, former: Mapping[str, str], tags: Mapping[str, str]) -> str:
    """Write the digests of a folder's files, beside those of `former` ones, and give its own."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    all_files = {**former, **{str(path.relative_to(folder)): files.sha256(path) for path in paths}}
    files.write_json(folder / DIGESTS, {"files": all_files, "tags": dict(tags)})
    return files.sha256(folder / DIGESTS)
