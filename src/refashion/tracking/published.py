"""Runs as MLflow holds them: found again, read back, and checked."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from refashion.base import files
from refashion.base.errors import UserError
from refashion.runs.run import Run, in_folder
from refashion.tracking.publish import COMPLETE, experiments
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

SHORTEST = 6
"""Characters of a run's id that must be given."""


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A run that was read back from MLflow: its files in one folder, MLflow's id, and its tags."""

    run: Run
    id: str
    tags: dict[str, str]


def find(text: str, store: Store) -> "list[MlflowRun]":
    """Find the complete runs that a text means, sorted by name; none, if it means nothing here.

    It is the id of a run, or its beginning; or the name of a DVC experiment, which has many runs.

    Raises
    ------
    UserError
        If it is the beginning of several ids.
    """
    complete = _complete(store)
    runs = [run for run in complete if text in experiments(run)]
    if not runs and len(text) >= SHORTEST:
        runs = [run for run in complete if run.info.run_id.startswith(text)]
        if len(runs) > 1:
            raise UserError(f"{text}: {len(runs)} runs begin so; give more of the id")
    return sorted(runs, key=lambda run: run.info.run_name)


def with_tag(key: str, value: str, store: Store) -> "list[MlflowRun]":
    """Find the complete runs that have a tag of this value."""
    return [run for run in _complete(store) if run.data.tags.get(key) == value]


def holding(digests: Collection[str], store: Store) -> "list[MlflowRun]":
    """Find the complete runs with weights or a file whose SHA-256 begins as one of `digests`."""
    runs = []
    for run in _complete(store):
        known = [run.data.tags.get("weights_sha256", "")]
        known += json.loads(run.data.tags.get("files", "{}")).values()
        if any(whole.startswith(digest) for whole in known for digest in digests):
            runs.append(run)
    return runs


def commit(mlflow_run: "MlflowRun") -> str | None:
    """Hash of the commit that a run's code is of; None outside git."""
    return mlflow_run.data.tags.get("git_commit")


def artifact(mlflow_run: "MlflowRun", name: str, store: Store) -> bytes:
    """Content of one of a run's artifacts."""
    with TemporaryDirectory() as folder:
        run_id = mlflow_run.info.run_id
        return Path(store.client.download_artifacts(run_id, name, folder)).read_bytes()


def read(mlflow_run: "MlflowRun", folder: Path, store: Store) -> PublishedRun:
    """Download a run's artifacts to a folder and make sure that they are what was published.

    Raises
    ------
    UserError
        If an artifact is missing or was altered, or if the run has an older layout.
    """
    run_id, tags = mlflow_run.info.run_id, mlflow_run.data.tags
    folder.mkdir(parents=True, exist_ok=True)
    store.client.download_artifacts(run_id, "", str(folder))
    run = in_folder(folder, f"run {run_id}", tags.get("git_commit"))
    # A run of an older layout has no digests of its files, and its record is refused.
    faults = []
    for name, promised in json.loads(tags.get("files", "{}")).items():
        file = folder / name
        if not file.is_file():
            faults.append(f"its artifact {name} is missing")
        elif files.sha256(file) != promised:
            faults.append(f"its artifact {name} was altered after it was published")
    if not faults and (run.record.result, run.measured) != (tags["result"], tags["evaluation"]):
        faults.append("its tags result and evaluation are not those of its artifacts")
    if faults:
        raise UserError(
            f"{run.title}: {faults[0]}; choose another run, or delete this one and publish anew "
            "with `refashion publish`"
        )
    return PublishedRun(run=run, id=run_id, tags=tags)


def _complete(store: Store) -> "list[MlflowRun]":
    """All runs that were published whole, newest first."""
    ids = [e.experiment_id for e in store.client.search_experiments()]
    runs: list[MlflowRun] = []
    token = None
    while True:
        page = store.client.search_runs(ids, f"tags.published = '{COMPLETE}'", page_token=token)
        runs += page
        token = page.token
        if not token:
            return runs
