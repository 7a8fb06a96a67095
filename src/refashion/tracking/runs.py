"""Runs as MLflow holds them: found again, read back, and checked."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.base.params import DataParams
from refashion.tracking.publish import COMPLETE, experiments
from refashion.tracking.results import ArmResults, Results
from refashion.tracking.store import Store
from refashion.training import digest
from refashion.training.record import run_key

if TYPE_CHECKING:
    from mlflow.entities import Run

SHORTEST = 6
"""Characters of a run's id that are asked for."""

PAGE = 1000
"""Runs to ask for at once."""


@dataclass(frozen=True, kw_only=True)
class SideBySide(Results):
    """Results whose files lie in one folder."""

    def _here(self, path: Path) -> Path:
        if path == self.log_path:
            return self.root / "training_log.json"
        return self.root / path.name


@dataclass(frozen=True, kw_only=True)
class Published(SideBySide):
    """The results that a run carries, in a folder with its artifacts."""

    run: "Run"
    """With its tags, params and metrics."""

    @property
    def run_id(self) -> str:
        """MLflow's id of the run."""
        return self.run.info.run_id

    @property
    def tags(self) -> dict[str, str]:
        """What the run was tagged with."""
        return self.run.data.tags

    @cached_property
    def data(self) -> DataParams:
        """The settings of the data, as the run has them: older files may have other keys."""
        found = {k: v for k, v in self.run.data.params.items() if k.startswith("data.")}
        values = {k.removeprefix("data."): v for k, v in found.items()}
        dataset = {"dataset": values.pop("dataset")}
        return DataParams.model_validate(
            {**dataset, **{k: json.loads(v) for k, v in values.items()}}
        )

    def artifact(self, name: str) -> Path:
        """Path of an artifact.

        Raises
        ------
        UserError
            If the run does not have it.
        """
        return self.file(self.root / name)

    def _missing(self, file: Path) -> str:
        return f"run {self.run_id}: its artifact {file} is missing; choose another run"


@dataclass(frozen=True, kw_only=True)
class PublishedArm(Published, ArmResults):
    """The results of an arm that a run carries."""


def find(text: str, store: Store) -> "list[Run]":
    """Find the runs that a text means.

    Parameters
    ----------
    text : str
        The id of a run, or its beginning; or the name of a DVC experiment, which has a run for
        every variant.
    store : Store
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
    everything = list(_all(store))
    found = [run for run in everything if text in experiments(run)]
    if not found and len(text) >= SHORTEST:
        found = [run for run in everything if run.info.run_id.startswith(text)]
        if len(found) > 1:
            raise UserError(f"{text}: {len(found)} runs begin so; give more of the id")
    return sorted(found, key=lambda run: run.info.run_name)


def with_tag(key: str, value: str, store: Store) -> "list[Run]":
    """Find the complete runs that have a tag of this value."""
    return [run for run in _all(store) if run.data.tags.get(key) == value]


def of_a_study(run: "Run") -> bool:
    """Whether a run holds an arm of a study."""
    return "/" in run.data.tags["variant"]


def _all(store: Store) -> "list[Run]":
    """Every run that was published whole, newest first."""
    ids = [e.experiment_id for e in store.client.search_experiments()]
    found: list[Run] = []
    token = None
    while True:
        page = store.client.search_runs(
            ids, f"tags.published = '{COMPLETE}'", max_results=PAGE, page_token=token
        )
        found += page
        token = page.token
        if not token:
            return found


def read(run: "Run", folder: Path, store: Store) -> Published:
    """Read a run's artifacts back and make sure that they are what was published.

    Parameters
    ----------
    run : Run
        As `find` gave it.
    folder : Path
        Where to put them; made if need be.
    store : Store
        Where they are.

    Raises
    ------
    UserError
        If an artifact is missing or was altered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store.client.download_artifacts(run.info.run_id, "", str(folder))
    kind = PublishedArm if of_a_study(run) else Published
    published = kind(root=folder, variant=run.data.tags["variant"], run=run)
    for name in _altered(published):
        raise UserError(
            f"run {run.info.run_id}: its artifact {name} was altered after it was published; "
            "choose another run, or delete it and publish anew with `refashion publish`"
        )
    return published


def _altered(published: Published) -> list[str]:
    """Artifacts that are not what the run's tags and its record promise."""
    from safetensors.torch import load_file

    tags = published.tags
    try:
        record = published.record
        outputs = record["outputs"]
        key = run_key({k: v for k, v in record.items() if k not in ("outputs", "run_key")})
        intact = record["run_key"] == key == tags["run_key"]
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact or published.outputs_digest != tags["result"]:
        return ["record.json"]
    of_evaluation = ", ".join(path.name for path in published.evaluation_files)
    promised = {
        "history.csv": (lambda: published.history_digest, outputs["history"]),
        of_evaluation: (lambda: published.evaluation_digest, tags["evaluation"]),
    }
    if file := published.weights:
        weights = published.file(file)
        promised[weights.name] = (lambda: digest.weights(load_file(weights)), outputs["weights"])
    return [name for name, (found, wanted) in promised.items() if _or_none(found) != wanted]


def _or_none(digest: Callable[[], str]) -> str | None:
    """A digest, or None of what cannot be read any more."""
    from safetensors import SafetensorError

    try:
        return digest()
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        return None
