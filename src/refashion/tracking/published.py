"""Runs as MLflow holds them: found again, read back, and checked."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base import files
from refashion.base.errors import UserError
from refashion.runs.run import Run, in_folder
from refashion.tracking import contents, publish
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


def complete(store: Store) -> "list[MlflowRun]":
    """All runs that were published whole, newest first."""
    ids = [e.experiment_id for e in store.client.search_experiments()]
    query = f"tags.`{publish.PUBLISHED}` = '{publish.COMPLETE}'"
    runs = page = store.client.search_runs(ids, query)
    while page.token:
        page = store.client.search_runs(ids, query, page_token=page.token)
        runs += page
    return runs


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
    runs = [run for run in runs_of_store if text in publish.experiments(run)]
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
        tags = [run.data.tags[publish.RESULT], run.data.tags.get("weights_sha256", "")]
        with suppress(MlflowException, OSError):  # a damaged run is no answer
            if any_begins(tags, digests) or any_begins(
                publish.digests(run, store.client)["files"].values(), digests
            ):
                runs.append(run)
    return runs


def read(mlflow_run: "MlflowRun", folder: Path, store: Store) -> PublishedRun:
    """Download a run's artifacts to a folder and make sure that all is what was published.

    Raises
    ------
    UserError
        If an artifact, a tag or a param is missing or was altered, or if the run has an older
        layout.
    """
    run_id, tags = mlflow_run.info.run_id, mlflow_run.data.tags
    folder.mkdir(parents=True, exist_ok=True)
    store.client.download_artifacts(run_id, "", str(folder))
    run = in_folder(folder, f"run {run_id}", tags.get("commit"))
    if fault := next(_faults(run, folder, mlflow_run), None):
        raise UserError(
            f"{run.title}: {fault}; choose another run, or delete this one and publish anew with "
            "`refashion publish`"
        )
    return PublishedRun(run=run, id=run_id, tags=tags)


def _faults(run: Run, folder: Path, mlflow_run: "MlflowRun") -> Iterator[str]:
    """What is missing or altered, the worst first."""
    tags = mlflow_run.data.tags
    if publish.OF_DIGESTS not in tags and run.record:  # which refuses a run of an older layout
        yield f"its tag {publish.OF_DIGESTS} is missing"
        return
    yield from _altered(folder, {publish.DIGESTS: tags[publish.OF_DIGESTS]})
    promised = json.loads((folder / publish.DIGESTS).read_text(encoding="utf-8"))
    yield from _altered(folder, promised["files"])
    measured = {publish.RESULT: run.record.result, publish.EVALUATION: run.measured}
    for key, value in {**promised["tags"], **measured}.items():
        if tags.get(key) != value:
            yield f"its tag {key} was altered after it was published"
    if contents.params(run) != mlflow_run.data.params:
        yield "its params are not those of its record"


def _altered(folder: Path, digests: Mapping[str, str]) -> Iterator[str]:
    """Which artifacts are missing, or do not have their digest."""
    for name, digest in digests.items():
        if not (folder / name).is_file():
            yield f"its artifact {name} is missing"
        elif files.sha256(folder / name) != digest:
            yield f"its artifact {name} was altered after it was published"
