"""Tags by which a published run tells which DVC experiments came to it."""

from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

OF_EXPERIMENT, THERE, REMOVED = "refashion.dvc_exp.", "there", "removed"
"""Begins the tag of each DVC experiment that came to the run, and what it says of that one now."""


def experiments(published: "MlflowRun", state: str = THERE) -> list[str]:
    """Names of the DVC experiments that came to a published run and are there, or were removed."""
    tags = published.data.tags.items()
    marks = [key for key, value in tags if key.startswith(OF_EXPERIMENT) and value == state]
    return sorted(unquote(key.removeprefix(OF_EXPERIMENT).replace(":", "%")) for key in marks)


def _mark_of(experiment: str) -> str:
    """The tag of an experiment; MLflow takes few characters, so others become ``:3D``."""
    return OF_EXPERIMENT + quote(experiment, safe="").replace("~", "%7E").replace("%", ":")


def mark(
    published: "MlflowRun", names: Collection[str], state: str, client: "MlflowClient"
) -> bool:
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
    client.log_batch(published.info.run_id, tags=[RunTag(*tag) for tag in tags.items()])
    return True
