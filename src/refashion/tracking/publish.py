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
from refashion.base.machine import is_running
from refashion.base.progress import progress
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import WEIGHTS, Run, in_folder
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

AFTER = " after it was published"

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

    A run that is there is held against its digests, with all artifacts and its model; of more than
    `MANY` runs on a server, whether their artifacts are there. What is missing or altered is logged
    again; where MLflow does not let it be changed, as a param, a new run takes the former's place.

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
        done = _publish(run, place, context, store, workspace, may_wait, len(runs) > MANY)
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
    is_one_of_many: bool,
) -> Publication | None:
    """Publish one run, unless MLflow has it; None if it may wait, and another is publishing it."""
    run.refuse_altered()
    if context.baseline and unchanged(run.file("record.json"), context.baseline):
        context = replace(context, experiment=None, baseline=None)
    with store.lock:
        same, others, is_underway = _look(run, place.experiment_id, store)
        created, tags = None, contents.tags(run, context)
        if not same:
            if may_wait and is_underway:
                return None
            if others:
                tags["divergence_of"] = others[0].info.run_id
            created = _create(place, tags, run, context, store, workspace)
            same, _, _ = _look(run, place.experiment_id, store)
        oldest = _keep_oldest(run, place, same, context, store)
        divergence_of = oldest.data.tags.get("divergence_of")
        outcome: Outcome = "already there"
        if oldest.info.run_id == created:
            outcome = "divergence" if divergence_of else "published"
        elif _is_faulty(oldest, run, is_one_of_many, store.client):
            outcome = "healed"
            tags |= {"divergence_of": divergence_of} if divergence_of else {}
            _renew(oldest, tags, run, context, store, workspace)
            oldest = store.client.get_run(oldest.info.run_id)
            if _is_faulty(oldest, run, is_one_of_many, store.client):
                delete(oldest, store.client)
                created = _create(place, tags, run, context, store, workspace)
                oldest = store.client.get_run(created)
        elif oldest.data.tags[EVALUATION] != run.measured:
            _renew(oldest, tags, run, context, store, workspace)
            outcome = "measured anew"
    return Publication(
        name=run.name,
        run_id=oldest.info.run_id,
        outcome=outcome,
        divergence_of=divergence_of,
        parent=run.record.parent,
    )


def promised(published: "MlflowRun", folder: Path) -> dict[str, dict[str, str]] | None:
    """What the digests among a run's artifacts, in a folder, promise; None if they were altered.

    That is the digests of its ``files`` and of those of its ``model``, and the ``tags`` that it was
    published with.
    """
    if files.altered(folder, {DIGESTS: published.data.tags.get(OF_DIGESTS, "")}):
        return None
    return json.loads((folder / DIGESTS).read_text(encoding="utf-8"))


def faults(published: "MlflowRun", folder: Path) -> Iterator[str]:
    """What is missing or altered of a run, whose artifacts are in a folder, the worst first."""
    tags, metrics = published.data.tags, published.data.metrics
    if OF_DIGESTS not in tags:
        yield f"its tag {OF_DIGESTS} is missing"
        return
    content = promised(published, folder)
    lost = files.altered(folder, content["files"]) if content else [DIGESTS]
    for name in lost:
        is_there = (folder / name).is_file()
        yield f"its artifact {name} {'was altered' + AFTER if is_there else 'is missing'}"
    if lost or content is None:
        return
    run = in_folder(folder, f"run {published.info.run_id}")
    of_record = {RESULT: run.record.result, EVALUATION: run.measured}
    for key, value in {"commit": None, "dirty": None, **content["tags"], **of_record}.items():
        if tags.get(key) != value:
            yield f"its tag {key} was altered{AFTER}"
    if contents.params(run) != published.data.params:
        yield "its params are not those of its record"
    for metric in contents.final_metrics(run, 0):
        if metrics.get(metric.key) != metric.value:
            yield f"its metric {metric.key} was altered{AFTER}"


def _is_faulty(
    published: "MlflowRun", run: Run, is_one_of_many: bool, client: "MlflowClient"
) -> bool:
    """Whether anything of a run or of its model is missing or altered."""
    if is_one_of_many and not published.info.artifact_uri.startswith("file:"):
        names = {item.path for item in client.list_artifacts(published.info.run_id)}
        return not names.issuperset([DIGESTS, *(file.name for file in run.files)])
    with logged_model.artifacts(published.info.artifact_uri, client) as folder:
        content = promised(published, folder)
        if content is None or next(faults(published, folder), None):
            return True
    return WEIGHTS in content["files"] and logged_model.is_altered(published, content, client)


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


def _look(
    run: Run, experiment_id: str, store: Store
) -> "tuple[list[MlflowRun], list[MlflowRun], bool]":
    """Complete publications of a run, others of its key, and whether another is underway.

    The oldest come first. Abandoned ones are deleted. One whose tag with the key or the result was
    altered is known by its record.
    """
    same, others, is_underway = [], [], False
    own = {"run_key": run.record.run_key, RESULT: run.record.result}
    record = {"record.json": files.sha256(run.file("record.json"))}
    for tag, value in own.items():
        for published in store.client.search_runs([experiment_id], f"tags.`{tag}` = '{value}'"):
            state = published.data.tags.get(PUBLISHED)  # None: somebody else's run
            if state == COMPLETE:
                if own.items() <= published.data.tags.items() or _has(published, record, store):
                    same.append(published)
                elif tag == "run_key":
                    others.append(published)
            elif state and _abandoned(state):
                delete(published, store.client)
            elif state:
                is_underway = True
        if same:
            break
    for found in (same, others):
        found.sort(key=lambda r: (r.info.start_time, r.info.run_id))
    return same, others, is_underway


def _has(published: "MlflowRun", digests: Mapping[str, str], store: Store) -> bool:
    """Whether a run has artifacts with these digests."""
    with logged_model.artifacts(published.info.artifact_uri, store.client) as folder:
        return not files.altered(folder, digests)


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
        host, pid, since = publisher.rsplit(" ", 2)
        if time.time() - int(since) > PATIENCE:
            return True
    except ValueError:  # no publisher wrote this
        return True
    if host != socket.gethostname():
        return False
    # What this process began before, it has given up.
    return int(pid) == os.getpid() or not is_running(int(pid))


def _keep_oldest(
    run: Run, place: _Place, same: "list[MlflowRun]", context: Context, store: Store
) -> "MlflowRun":
    """Leave one of the complete publications of this run, with the names of all DVC experiments.

    Whoever is the last to look sees all of them, so that in the end there is exactly one. The
    lists of names are looked at again after they were written.
    """
    from mlflow.exceptions import MlflowException

    names = {context.experiment} if context.experiment else set()
    while True:
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
        same, _, _ = _look(run, place.experiment_id, store)


def _renew(
    published: "MlflowRun",
    tags: Mapping[str, str],
    run: Run,
    context: Context,
    store: Store,
    workspace: Workspace,
) -> None:
    """Log again what is missing or altered, and what an evaluation has changed.

    If a file that is missing is no longer here as it was, all of them and all tags are replaced:
    the run now comes from the present state of the checkout.
    """
    from mlflow.entities import RunTag

    client, run_id = store.client, published.info.run_id
    with (
        logged_model.artifacts(published.info.artifact_uri, client) as former,
        tempfile.TemporaryDirectory() as name,
    ):
        folder, kept = Path(name), {}
        contents.write_training(run, context, workspace, folder)
        of_training = files.digests(folder)
        contents.write_measured(run, workspace, folder)
        content = promised(published, former) or {"files": {DIGESTS: ""}}
        lost = files.altered(former, content["files"])
        if not files.altered(folder, {name: content["files"][name] for name in lost}):
            kept, tags = content["files"], content["tags"]
            for name in of_training.keys() - set(lost):
                (folder / name).unlink()
        model_id, of_model = logged_model.renew(published, run, content.get("model"), client)
        digest = _write_digests(folder, kept, tags, of_model)
        client.log_artifacts(run_id, str(folder))
    metrics = contents.final_metrics(run, time.time(), model_id)
    tags = {**tags, RESULT: run.record.result, EVALUATION: run.measured, OF_DIGESTS: digest}
    client.log_batch(run_id, metrics, tags=[RunTag(*tag) for tag in tags.items()])


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
                PUBLISHED: f"{socket.gethostname()} {os.getpid()} {now:.0f}",
            },
            run_name=view.run_name(run, place.swept, committed_record),
        ).info.run_id
        model_id, of_model = logged_model.log(run, run_id, place.experiment_id, client)
        metrics += contents.final_metrics(run, now, model_id)
        description = RunTag(view.DESCRIPTION, view.run_description(run, place.swept, run_id))
        digest = RunTag(OF_DIGESTS, _write_digests(folder, {}, tags, of_model))
        client.log_batch(run_id, metrics[:BATCH], params, [description, digest])
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


def _write_digests(
    folder: Path, kept: Mapping[str, str], tags: Mapping[str, str], of_model: Mapping[str, str]
) -> str:
    """Write the digests of a folder's files, of others and of a model's, and give its own."""
    promise = {"files": {**kept, **files.digests(folder)}, "model": of_model, "tags": tags}
    files.write_json(folder / DIGESTS, promise)
    return files.sha256(folder / DIGESTS)
