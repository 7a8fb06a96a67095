"""Publish runs to MLflow, each once: an index of what the repository and DVC's cache hold."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.machine import PROCESSES, is_running
from refashion.base.progress import progress
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.tracking import contents, integrity, logged_model, marks, view
from refashion.tracking.context import Context, committed, unchanged
from refashion.tracking.integrity import (
    COMPLETE,
    DIGESTS,
    EVALUATION,
    OF_DIGESTS,
    PUBLISHED,
    RESULT,
)
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PATIENCE = 600
"""Seconds after which an unfinished publication of elsewhere counts as abandoned."""

PARENT = "mlflow.parentRunId"
"""The tag with the id of the run that sums this one up, under which MLflow's pages show it."""

BATCH = 500
"""Metrics to send at once: a server takes 1,000 in a request, and 1 MB."""

MANY = 100
"""Of more runs, a bar or lines in a log tell how many are done."""

Outcome = Literal["published", "already there", "measured anew", "healed", "divergence"]
"""``measured anew``: there, but its evaluation has changed; ``healed``: something of it was missing
or altered; ``divergence``: published beside another result of the same run key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """How a run got into MLflow."""

    name: str  # of the run: the variant's, or ``STUDY/NAME``
    run_id: str  # MLflow's
    outcome: Outcome
    divergence_of: str | None  # id of the run with the same key that came out differently
    parent: str | None  # name of the run that sums it up


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    """A run to publish, where it belongs in MLflow, and where it comes from."""

    run: Run
    experiment_id: str
    parent_id: str | None  # of the run that sums it up
    swept: Sequence[str]  # settings that differ among the runs that are summed up with it, or by it
    context: Context
    store: Store
    workspace: Workspace


def publish_all(
    runs: Sequence[Run], context: Context, store: Store, workspace: Workspace
) -> Iterator[Publication]:
    """Publish runs that MLflow does not have, one by one; one that sums up others before them.

    Those others become its child runs, unless they are there already, under a parent that is, too.

    Same run key and same outputs of the training: nothing changes, but the name of a further DVC
    experiment is added to the tag ``dvc_exp``, and metrics, files and pictures of an evaluation
    that has changed replace the former ones. Same key and other outputs: a run of its own, with
    the tag ``divergence_of``. What a publisher that was killed left half done is deleted.

    A run that is there is held against its digests, with all artifacts and its model; of more than
    `MANY` runs on a server, whether their artifacts are there. What is missing or altered is logged
    again; where MLflow does not let it be changed, as a param, a new run takes the former's place.

    A DVC experiment's results are the runs whose record is not that of its baseline: its name is
    added to no others.

    On this machine a lock lets one publisher in at a time. Publishers that share a server leave to
    the end what another one is publishing. Still they may publish a run twice: each looks again
    before its own is complete, and withdraws it if there is one, and once more afterwards: of those
    that were complete at the same moment the oldest stays.

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
        job = _Job(
            run=run,
            experiment_id=experiments[name],
            parent_id=ids.get(parent or ""),
            swept=differing,
            context=_context_of(run, context),
            store=store,
            workspace=workspace,
        )
        done = _publish(job, may_wait, len(runs) > MANY)
        if done:
            ids[run.name] = done.run_id
        return done

    with progress("publish", len(runs), "runs", shown=len(runs) > MANY) as advance:
        queue = [(run, run.record.parent is not None) for run in runs]
        for run, may_wait in queue:
            if done := publish(run, may_wait=may_wait):
                yield done
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


def _context_of(run: Run, context: Context) -> Context:
    """Leave out of the context a DVC experiment whose baseline has the run already."""
    if context.baseline and unchanged(run.file("record.json"), context.baseline):
        return replace(context, experiment=None, baseline=None)
    return context


def _publish(job: _Job, may_wait: bool, is_one_of_many: bool) -> Publication | None:
    """Publish one run, unless MLflow has it; None if it may wait, and another is publishing it."""
    run, client = job.run, job.store.client
    run.refuse_altered()
    with job.store.lock:
        same, others, is_underway = _look(job)
        created, tags = None, contents.tags(run, job.context)
        if not same:
            if may_wait and is_underway:
                return None
            if others:
                tags["divergence_of"] = others[0].info.run_id
            created = _create(job, tags)
            same, _, _ = _look(job)
        oldest = _keep_oldest(job, same)
        divergence_of = oldest.data.tags.get("divergence_of")
        outcome: Outcome = "already there"
        if oldest.info.run_id == created:
            outcome = "divergence" if divergence_of else "published"
        elif integrity.is_faulty(oldest, run, is_one_of_many, client):
            outcome = "healed"
            tags |= {"divergence_of": divergence_of} if divergence_of else {}
            _renew(job, oldest, tags)
            oldest = client.get_run(oldest.info.run_id)
            if integrity.is_faulty(oldest, run, is_one_of_many, client):
                delete(oldest, client)
                _create(job, tags)
                oldest = _keep_oldest(job, _look(job)[0])
        elif oldest.data.tags.get(EVALUATION) != run.measured:
            _renew(job, oldest, tags)
            outcome = "measured anew"
    return Publication(
        name=run.name,
        run_id=oldest.info.run_id,
        outcome=outcome,
        divergence_of=divergence_of,
        parent=run.record.parent,
    )


def _move(job: _Job, published: "MlflowRun") -> bool:
    """Put a run under its parent, unless it has one that is there. False: nothing to do."""
    client, former = job.store.client, published.data.tags.get(PARENT)
    if job.parent_id in (None, former):
        return False
    query = f"attributes.run_id = '{former}'"
    if former and client.search_runs([job.experiment_id], query):
        return False
    client.set_tag(published.info.run_id, PARENT, job.parent_id)
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


def _look(job: _Job) -> "tuple[list[MlflowRun], list[MlflowRun], bool]":
    """Complete publications of a run, others of its key, and whether another is underway.

    The oldest come first. Abandoned ones are deleted. One whose tag with the key or the result was
    altered is known by its record.
    """
    same, others, is_underway = [], [], False
    run, client = job.run, job.store.client
    own = _own_tags(run)
    for tag, value in own.items():
        query = f"tags.`{tag}` = '{value}'"
        for published in client.search_runs([job.experiment_id], query, order_by=["start_time"]):
            tags = published.data.tags
            state = tags.get(PUBLISHED)  # None: somebody else's run
            if state == COMPLETE:
                if own.items() <= tags.items() or _has_record(published, run, client):
                    same.append(published)
                elif tag == "run_key":
                    others.append(published)
            elif state and _abandoned(state):
                delete(published, client)
            elif state:
                is_underway = True
        if same:
            break
    return same, others, is_underway


def _own_tags(run: Run) -> dict[str, str]:
    """Tags that all publications of a run have, and those of no other run."""
    return {"run_key": run.record.run_key, RESULT: run.record.result}


def _has_record(published: "MlflowRun", run: Run, client: "MlflowClient") -> bool:
    """Whether the record among the artifacts of a published run is a run's."""
    record = {"record.json": files.sha256(run.file("record.json"))}
    with logged_model.artifacts(published.info.artifact_uri, client) as folder:
        return not files.altered(folder, record)


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
    try:
        where, pid, since = publisher.rsplit(" ", 2)
        if abs(time.time() - int(since)) > PATIENCE:
            return True
        # What this process began before, it has given up.
        is_ended = int(pid) == os.getpid() or not is_running(int(pid))
        return where == PROCESSES and is_ended
    except (ValueError, OverflowError):  # no publisher wrote this
        return True


def _keep_oldest(job: _Job, same: "list[MlflowRun]") -> "MlflowRun":
    """Leave one of the complete publications of this run, with the names of all DVC experiments.

    Whoever is the last to look sees all of them, so that in the end there is exactly one. The
    lists of names are looked at again after they were written.
    """
    from mlflow.exceptions import MlflowException

    client, experiment = job.store.client, job.context.experiment
    names = {experiment} if experiment else set()
    while True:
        if not same:
            title = job.run.title
            raise UserError(f"{title}: its run was deleted in MLflow meanwhile; publish again")
        oldest, *doubles = same
        for double in doubles:
            delete(double, client)
            # Read when nobody can add to it any more.
            names.update(marks.experiments(client.get_run(double.info.run_id)))
        try:
            if not (_move(job, oldest) or marks.mark(oldest, names, marks.THERE, client)):
                return oldest
        except MlflowException:
            if client.get_run(oldest.info.run_id).info.lifecycle_stage != "deleted":
                raise
        same, _, _ = _look(job)


def _renew(job: _Job, published: "MlflowRun", tags: Mapping[str, str]) -> None:
    """Log again what is missing or altered, and what an evaluation has changed.

    If a file that is missing is no longer here as it was, all of them and all tags are replaced:
    the run now comes from the present state of the checkout.
    """
    from mlflow.entities import RunTag

    run, client, run_id = job.run, job.store.client, published.info.run_id
    with (
        logged_model.artifacts(published.info.artifact_uri, client) as former,
        tempfile.TemporaryDirectory() as name,
    ):
        folder, kept = Path(name), {}
        contents.write_training(run, job.context, job.workspace, folder)
        of_training = files.digests(folder)
        contents.write_measured(run, job.workspace, folder)
        content = integrity.promised(published, former) or {"files": {DIGESTS: ""}}
        lost = files.altered(former, content["files"])
        if not files.altered(folder, {name: content["files"][name] for name in lost}):
            kept, tags = content["files"], content["tags"]
            for name in of_training.keys() - set(lost):
                (folder / name).unlink()
        model_id, of_model = logged_model.renew(published, run, content.get("model"), client)
        digest = integrity.write_digests(folder, kept, tags, of_model)
        logged_model.make_way(published.info.artifact_uri, files.digests(folder))
        client.log_artifacts(run_id, str(folder))
    metrics = contents.final_metrics(run, time.time(), model_id)
    tags = {**tags, RESULT: run.record.result, EVALUATION: run.measured, OF_DIGESTS: digest}
    client.log_batch(run_id, metrics, tags=[RunTag(*tag) for tag in tags.items()])


def _create(job: _Job, tags: Mapping[str, str]) -> str:
    """Make MLflow's run and all it carries; its last tag says that nothing is missing.

    It is withdrawn where another publisher's was complete before it: that one has been told of.
    """
    from mlflow.entities import Param, RunTag

    run, client, now = job.run, job.store.client, time.time()
    start, end = contents.times(run, now)
    named_by_commit = None if run.record.parent else job.context.commit
    record = run.file("record.json")
    committed_record = committed(record, named_by_commit) if named_by_commit else b""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents.write_training(run, job.context, job.workspace, folder)
        contents.write_measured(run, job.workspace, folder)
        metrics = contents.epoch_metrics(run, now)
        params = [Param(*setting) for setting in contents.params(run).items()]
        # Whatever of the run is missing or broken has been noticed by now.
        run_id = client.create_run(
            job.experiment_id,
            start_time=round(start * 1000),
            tags={
                **tags,
                **({PARENT: job.parent_id} if job.parent_id else {}),
                RESULT: run.record.result,
                EVALUATION: run.measured,
                PUBLISHED: f"{PROCESSES} {os.getpid()} {now:.0f}",
            },
            run_name=view.run_name(run, job.swept, committed_record),
        ).info.run_id
        model_id, of_model = logged_model.log(run, run_id, job.experiment_id, client)
        metrics += contents.final_metrics(run, now, model_id)
        description = RunTag(view.DESCRIPTION, view.run_description(run, job.swept, run_id))
        digest = RunTag(OF_DIGESTS, integrity.write_digests(folder, {}, tags, of_model))
        client.log_batch(run_id, metrics[:BATCH], params, [description, digest])
        for first in range(BATCH, len(metrics), BATCH):
            client.log_batch(run_id, metrics[first : first + BATCH])
        _log_inputs(run_id, run, client)
        client.log_artifacts(run_id, str(folder))
    client.set_terminated(run_id, end_time=round(end * 1000))
    of_rival = (_own_tags(run) | {PUBLISHED: COMPLETE}).items()
    query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in of_rival)
    if client.search_runs([job.experiment_id], query):
        delete(client.get_run(run_id), client)
    else:
        client.set_tag(run_id, PUBLISHED, COMPLETE)
    return run_id


def _log_inputs(run_id: str, run: Run, client: "MlflowClient") -> None:
    """Tell of the data sets, again for each that another publisher may have added in between.

    A server looks which ones it has, then adds the others: all, or none if one of them is there.
    """
    from mlflow.exceptions import MlflowException

    datasets = contents.inputs(run)
    for _ in datasets:
        try:
            return client.log_inputs(run_id, datasets)
        except MlflowException:
            continue
    return client.log_inputs(run_id, datasets)
