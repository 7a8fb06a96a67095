"""Runs as MLflow holds them: found again, read back, and checked."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.runs.run import Run, in_folder
from refashion.tracking.publish import COMPLETE, experiments
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

SHORTEST = 6
"""Characters of a run's id that must be given."""

PAGE = 1000
"""Runs to ask for at once."""


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A run that was read back from MLflow."""

    run: Run
    """Its files, in one folder."""

    id: str
    """MLflow's id of the run."""

    tags: dict[str, str]
    """What the run was tagged with."""


def find(text: str, store: Store) -> "list[MlflowRun]":
    """Find the runs that a text means.

    Parameters
    ----------
    text
        The id of a run, or its beginning; or the name of a DVC experiment, which has many runs.
    store
        Where to look.

    Returns
    -------
    list of Run
        Complete runs alone; none, if the text means nothing here.

    Raises
    ------
    UserError
        If it is the beginning of several ids.
    """
    everything = _all(store)
    runs = [run for run in everything if text in experiments(run)]
    if not runs and len(text) >= SHORTEST:
        runs = [run for run in everything if run.info.run_id.startswith(text)]
        if len(runs) > 1:
            raise UserError(f"{text}: {len(runs)} runs begin so; give more of the id")
    return sorted(runs, key=lambda run: run.info.run_name)


def with_tag(key: str, value: str, store: Store) -> "list[MlflowRun]":
    """Find the complete runs that have a tag of this value."""
    return [run for run in _all(store) if run.data.tags.get(key) == value]


def read(mlflow_run: "MlflowRun", folder: Path, store: Store) -> PublishedRun:
    """Read a run's artifacts back and make sure that they are what was published.

    Parameters
    ----------
    mlflow_run
        As `find` gave it.
    folder
        Where to put them; made if need be.
    store
        Where they are.

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
    for name, promised in json.loads(tags.get("files", "{}")).items():
        file = folder / name
        if not file.is_file() or sha256(file.read_bytes()).hexdigest() != promised:
            what = "was altered after it was published" if file.is_file() else "is missing"
            raise UserError(
                f"{run.title}: its artifact {name} {what}; choose another run, or delete this one "
                "and publish anew with `refashion publish`"
            )
    if (run.record.result, run.measured) != (tags["result"], tags["evaluation"]):
        raise UserError(
            f"{run.title}: its tags result and evaluation are not those of its artifacts; choose "
            "another run, or delete this one and publish anew with `refashion publish`"
        )
    return PublishedRun(run=run, id=run_id, tags=tags)


def _all(store: Store) -> "list[MlflowRun]":
    """Every run that was published whole, newest first."""
    ids = [e.experiment_id for e in store.client.search_experiments()]
    runs: list[MlflowRun] = []
    token = None
    while True:
        page = store.client.search_runs(
            ids, f"tags.published = '{COMPLETE}'", max_results=PAGE, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs
