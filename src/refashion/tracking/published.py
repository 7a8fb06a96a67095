"""Runs as MLflow holds them: found again, read back, and checked."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.runs.run import Run, in_folder
from refashion.tracking import integrity, marks
from refashion.tracking.logged_model import artifacts, fetch
from refashion.tracking.store import Store, every_page

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


def complete(store: Store) -> "list[MlflowRun]":
    """All runs that were published whole, newest first."""
    ids = [experiment.experiment_id for experiment in store.experiments()]
    query = f"tags.`{integrity.PUBLISHED}` = '{integrity.COMPLETE}'"
    return every_page(store.client.search_runs, ids, query)


def find(text: str, store: Store) -> "list[MlflowRun]":
    """Find the complete runs of a store that a text means; see `meant`."""
    return meant(text, complete(store))


def meant(text: str, runs_of_store: "Collection[MlflowRun]") -> "list[MlflowRun]":
    """The complete runs that a text means, sorted by name; none, if it means nothing here.

    It is the id of a run, or its beginning; or the name of a DVC experiment, which has many runs.

    Raises
    ------
    UserError
        If it is the beginning of several ids.
    """
    runs = [run for run in runs_of_store if text in marks.experiments(run)]
    if not runs and len(text) >= SHORTEST:
        runs = [run for run in runs_of_store if run.info.run_id.startswith(text)]
        if len(runs) > 1:
            raise UserError(f"{text}: {len(runs)} runs begin so; give more of the id")
    return sorted(runs, key=lambda run: run.info.run_name)


def any_begins(texts: Iterable[str], beginnings: Collection[str]) -> bool:
    """Whether one of the texts, such as digests, has one of these beginnings."""
    return any(text.startswith(tuple(beginnings)) for text in texts)


def holding(digests: Collection[str], store: Store) -> "list[MlflowRun]":
    """Find the complete runs with a result or a file whose SHA-256 begins as one of `digests`."""
    from mlflow.exceptions import MlflowException

    runs = []
    for run in complete(store):
        with (
            suppress(MlflowException, OSError),  # a damaged run is no answer
            artifacts(f"{run.info.artifact_uri}/{integrity.DIGESTS}", store.client) as file,
        ):
            tags, content = run.data.tags, integrity.promised(run, file.parent)
            needed = {"name", "weights_sha256", integrity.RESULT}
            if content and content["tags"].items() <= tags.items() and needed <= tags.keys():
                results = [tags[integrity.RESULT], tags["weights_sha256"]]
                if any_begins([*results, *content["files"].values()], digests):
                    runs.append(run)
    return runs


def read(mlflow_run: "MlflowRun", folder: Path, store: Store) -> PublishedRun:
    """Download a run's artifacts to a folder and make sure that all is what was published.

    What was added to them later is not opened.

    Raises
    ------
    UserError
        If an artifact, a tag or a param is missing or was altered, or if the run has an older
        layout.
    """
    run_id, tags = mlflow_run.info.run_id, mlflow_run.data.tags
    folder.mkdir(parents=True, exist_ok=True)
    run = in_folder(folder, f"run {run_id}", tags.get("commit"))
    if integrity.OF_DIGESTS not in tags:
        fetch(mlflow_run, ["record.json"], folder, store.client)
        _ = run.has("record.json") and run.record  # which refuses an older layout
    fetch(mlflow_run, [integrity.DIGESTS], folder, store.client)
    promised = integrity.promised(mlflow_run, folder) or {"files": {}}
    fetch(mlflow_run, promised["files"], folder, store.client)
    if fault := next(integrity.faults(mlflow_run, folder), None):
        raise UserError(
            f"{run.title}: {fault}; `refashion publish` mends a run that is in the workspace or a "
            "DVC experiment; else choose another"
        )
    return PublishedRun(run=run, id=run_id, tags=tags)
