"""Logged models of runs as versions of registered models, which MLflow serves."""

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.tracking import integrity, logged_model, published, view
from refashion.tracking.store import Store, by_default

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """A version of a registered model."""

    name: str
    version: str
    run_id: str
    is_new: bool
    """False: the registry had a version of this run's model."""


def one_run(text: str, store: Store) -> "MlflowRun":
    """Find the one run with a model that a text means to `refashion.tracking.published.find`.

    Raises
    ------
    UserError
        If it means none, several, or a run without a model.
    """
    runs = published.find(text, store)
    if not runs:
        raise UserError(
            f"{text}: no run or experiment of that name; `make ui` lists the runs, and "
            "`refashion publish` publishes what is missing there"
        )
    with_model = [run for run in runs if logged_model.of_run(run, store.client)]
    if not with_model:
        cures = ["choose a run of a variant"]
        if any(_promises_model(run, store) for run in runs):
            cures.append("delete this run in MLflow and publish it anew with `refashion publish`")
        raise UserError(f"{text}: has no model; {', or '.join(cures)}")
    if len(with_model) > 1:
        names = ", ".join(f"{run.info.run_name} {run.info.run_id}" for run in with_model)
        raise UserError(f"{text}: means {len(with_model)} runs; give the id of one: {names}")
    return with_model[0]


def _promises_model(mlflow_run: "MlflowRun", store: Store) -> bool:
    """Whether a run was published with a model."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        logged_model.fetch(mlflow_run, [integrity.DIGESTS], folder, store.client)
        promised = integrity.promised(mlflow_run, folder)
        return bool(promised and promised["model"])


def register(
    mlflow_run: "MlflowRun", alias: str, store: Store, name: str | None = None
) -> Registration:
    """Make a run's model a version of a registered model, once, and point an alias to it.

    The registered model is called `name`, by default ``DATASET-NAME`` of the run. The version has
    the model's description and tags, and the run's test accuracy and cross-entropy as tags.

    Raises
    ------
    UserError
        If the alias or the name is not legal, or a file of the run or of its model is missing or
        was altered.
    """
    if not re.fullmatch(r"(?!latest$|v\d+$)[\w-]{1,255}", alias, re.ASCII | re.IGNORECASE):
        raise UserError(
            f"alias {alias!r}: is not legal; use letters, digits, _ and -, but not latest, v1, v2"
        )
    if name is not None and not _is_legal(name):
        raise UserError(
            f"name {name!r}: is not legal in models:/NAME; use letters, digits, _ and -, or leave "
            "it out for DATASET-NAME"
        )
    with tempfile.TemporaryDirectory() as folder, store.lock, by_default(store):
        source = published.read(mlflow_run, Path(folder), store)
        promised = integrity.promised(mlflow_run, Path(folder))
        if not promised or logged_model.is_altered(mlflow_run, promised["model"], store.client):
            raise UserError(
                f"{source.run.title}: its model was altered after it was published; "
                "`refashion publish` mends it"
            )
        (model,) = logged_model.of_run(mlflow_run, store.client)
        if name is None:
            name = f"{source.run.record.data['dataset']}-{source.run.name}"
        versions = store.client.search_model_versions(f"run_id = '{source.id}'")
        same = [v for v in versions if (v.name, v.source) == (name, model.model_uri)]
        version = max((str(v.version) for v in same), key=int, default=None)
        if version is None:
            version = _create(name, source, model, store)
        store.client.set_registered_model_alias(name, alias, version)
    return Registration(name=name, version=version, run_id=source.id, is_new=not same)


def _is_legal(name: str) -> bool:
    """Whether a model of that name can be loaded by ``models:/NAME@ALIAS`` or with a version."""
    return bool(name.strip()) and name.isprintable() and not set("/:?") & set(name)


def _create(name: str, source: published.PublishedRun, model: "LoggedModel", store: Store) -> str:
    """Make a version, and the registered model if there is none."""
    from mlflow.exceptions import MlflowException

    tags = logged_model.about(source.run)
    about = f"Classifiers of {tags['dataset']}, registered by `refashion register RUN`"
    try:
        store.client.create_registered_model(name, description=f"{about}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags |= {key: str(v) for key, v in source.run.metrics.items() if key in view.HEADLINES}
    created = store.client.create_model_version(
        *(name, model.model_uri, source.id, tags),
        description=view.run_description(source.run, (), source.id),
        model_id=model.model_id,
    )
    return str(created.version)
