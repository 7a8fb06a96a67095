"""Runs as versions of registered models, which MLflow serves."""

import json
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refashion.base.errors import UserError
from refashion.data.catalogue import DATASETS
from refashion.runs.run import WEIGHTS
from refashion.tracking import published
from refashion.tracking.published import PublishedRun
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

PACKAGE = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("model_code.py")
CODE = (
    *("__init__.py", "base/__init__.py", "base/errors.py", "portable/*.py", "training/*.py"),
    *("data/__init__.py", "data/catalogue.py", "serving/__init__.py", "serving/classify.py"),
)
"""What the script imports, and all that these import: the code inside a model."""

ARTIFACTS = {"weights": WEIGHTS, "record": "record.json"}
"""Files of the run that a model takes along, by the names that the script knows them by."""

REQUIREMENTS = ("mlflow", "numpy", "safetensors", "torch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """A version of a registered model."""

    name: str
    version: str
    run_id: str
    is_new: bool
    """False: the registry had a version of this run with this very content."""


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
    # A run of an older layout has no list of its files: reading it will say so.
    models = [run for run in runs if WEIGHTS in run.data.tags.get("files", WEIGHTS)]
    if not models:
        raise UserError(f"{text}: has no model; choose a run of a variant")
    if len(models) > 1:
        names = ", ".join(f"{run.data.tags['name']} {run.info.run_id}" for run in models)
        raise UserError(f"{text}: means {len(models)} runs; give the id of one: {names}")
    return models[0]


def register(
    mlflow_run: "MlflowRun", alias: str, store: Store, name: str | None = None
) -> Registration:
    """Make a run's model a version of a registered model, once, and point an alias to it.

    The registered model is called `name`, by default ``DATASET-NAME`` of the run.

    Raises
    ------
    UserError
        If the alias is not legal, or an artifact of the run is missing or was altered.
    """
    if not re.fullmatch(r"(?!latest$|v\d+$)[\w-]{1,255}", alias, re.ASCII | re.IGNORECASE):
        raise UserError(
            f"alias {alias!r}: is not legal; use letters, digits, _ and -, but not latest, v1, v2"
        )
    with tempfile.TemporaryDirectory() as folder, store.lock:
        source = published.read(mlflow_run, Path(folder) / "run", store)
        about = _describe(source)
        name = name or f"{about['dataset']}-{about['run']}"
        versions = store.client.search_model_versions(f"run_id = '{source.id}'")
        same = [v for v in versions if (v.name, v.tags.get("content")) == (name, about["content"])]
        version = max((str(v.version) for v in same), key=int, default=None)
        if version is None:
            version = _create(name, mlflow_run, source, about, Path(folder), store)
        store.client.set_registered_model_alias(name, alias, version)
    return Registration(name=name, version=version, run_id=source.id, is_new=not same)


def _describe(source: PublishedRun) -> dict[str, Any]:
    """Metadata of the model of a run; ``content`` is the digest of all that it consists of."""
    record = source.run.record
    about = {
        "classes": list(DATASETS[record.data["dataset"]].classes),
        "contract": record.contract,
        "dataset": record.data["dataset"],
        "evaluation": source.tags["evaluation"],
        "run": record.name,
        "run_key": record.run_key,
        "weights": record.outputs["weights"],
    }
    code = {str(f.relative_to(PACKAGE)): f.read_text(encoding="utf-8") for f in [SCRIPT, *_code()]}
    content = json.dumps([about, code, _requirements()], sort_keys=True)
    return {**about, "content": sha256(content.encode()).hexdigest()}


def _code() -> list[Path]:
    """Files of the package that a model takes along."""
    return sorted(file for pattern in CODE for file in PACKAGE.glob(pattern))


def _requirements() -> list[str]:
    """Packages that a model needs, without labels of builds: 2.9.0+cpu is on no index."""
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def _create(
    name: str,
    mlflow_run: "MlflowRun",
    source: PublishedRun,
    about: dict[str, Any],
    folder: Path,
    store: Store,
) -> str:
    """Log the model to its run and register it; what fails halfway is deleted."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.exceptions import MlflowException

    client = store.client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {k: v for k, v in about.items() if isinstance(v, str)}
    # Not by `mlflow.pyfunc.log_model`: it would open the run again and move its end to now.
    logged = client.create_logged_model(
        *(mlflow_run.info.experiment_id, source.run.name, source.id, tags),
        mlflow_run.data.params,
    )
    try:
        _save(folder / "model", logged, source, about)
        client.log_model_artifacts(logged.model_id, str(folder / "model"))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(source.id, [LoggedModelOutput(logged.model_id, step=0)])
        created = client.create_model_version(
            name, logged.model_uri, source.id, tags, model_id=logged.model_id
        )
    except BaseException:
        client.delete_logged_model(logged.model_id)
        raise
    return str(created.version)


def _save(target: Path, logged: Any, source: PublishedRun, about: dict[str, Any]) -> None:
    """Write the model as MLflow lays it out."""
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, infer_signature
    from mlflow.types import Schema, TensorSpec

    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")  # or it takes along files from here
    code = target.with_name("code") / PACKAGE.name
    for file in _code():
        copy = code / file.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    image = np.linspace(0, 255, 784).astype(np.uint8).reshape(1, 28, 28)
    answer = {"class": "", "probabilities": dict.fromkeys(about["classes"], 0.1)}
    signature = infer_signature(image, [answer])
    # MLflow would cut fractions off and know one shape alone: the model itself checks its images.
    signature.inputs = Schema([TensorSpec(np.dtype(object), (-1,))])
    pyfunc.save_model(
        target,
        python_model=str(SCRIPT),
        artifacts={name: str(source.run.file(file)) for name, file in ARTIFACTS.items()},
        code_paths=[str(code)],
        signature=signature,
        input_example=image,
        pip_requirements=_requirements(),
        metadata=about,
        mlflow_model=Model(
            artifact_path=logged.artifact_location,
            run_id=source.id,
            model_uuid=logged.model_id,
            model_id=logged.model_id,
        ),
    )
