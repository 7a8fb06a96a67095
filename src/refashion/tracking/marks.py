"""Tags by which a published run tells which DVC experiments came to it."""

import hashlib
from collections.abc import Collection
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

OF_EXPERIMENT, THERE, REMOVED = "refashion.dvc_exp.", "there", "removed"
"""Begins the tag of each DVC experiment that came to the run, and what it says of that one now."""

OF_LONG_NAME = "refashion.long_dvc_exp."
"""Begins that of one with a long name, which has a digest for it; the name is in the value."""

LONGEST_KEY, LONGEST_VALUE, BATCH = 250, 5000, 100
"""Characters that MLflow takes of a tag's name, those of its value that are told, tags at once."""


def experiments(published: "MlflowRun", state: str = THERE) -> list[str]:
    """Names of the DVC experiments that came to a published run and are there, or were removed."""
    tags = published.data.tags.items()
    short = [key.removeprefix(OF_EXPERIMENT) for key, _ in tags if key.startswith(OF_EXPERIMENT)]
    names = [unquote(name.replace(":", "%")) for name in short]
    names += [v.removeprefix(f"{state} ") for k, v in tags if k.startswith(OF_LONG_NAME)]
    return sorted({name for name in names if _mark_of(name, state) in tags})


def _mark_of(experiment: str, state: str) -> tuple[str, str]:
    """The tag of an experiment; MLflow takes few characters, so others become ``:3D``."""
    key = OF_EXPERIMENT + quote(experiment, safe="").replace("~", "%7E").replace("%", ":")
    if len(key) <= LONGEST_KEY:
        return key, state
    digest = hashlib.sha256(experiment.encode()).hexdigest()
    return OF_LONG_NAME + digest, f"{state} {experiment}"[:LONGEST_VALUE]


def mark(
    published: "MlflowRun", names: Collection[str], state: str, client: "MlflowClient"
) -> bool:
    """Tell on a published run which DVC experiments are there, or were removed.

    Each name has a tag of its own, for of two who change one tag at a time the first would be
    lost; ``dvc_exp`` and ``dvc_exp_removed`` list them for people, as far as MLflow takes it.
    False: it was told before.
    """
    from mlflow.entities import RunTag

    tags = dict(_mark_of(name, state) for name in names)
    for key, listed in (("dvc_exp", THERE), ("dvc_exp_removed", REMOVED)):
        others = set(experiments(published, listed)).difference(names)
        value = ",".join(sorted(others.union(names if state == listed else ())))
        if value or key in published.data.tags:
            is_long = len(value) > LONGEST_VALUE
            tags[key] = f"{value[: LONGEST_VALUE - 1]}…" if is_long else value
    if tags.items() <= published.data.tags.items():
        return False
    for first in range(0, len(tags), BATCH):
        some = list(tags.items())[first : first + BATCH]
        client.log_batch(published.info.run_id, tags=[RunTag(*tag) for tag in some])
    return True
