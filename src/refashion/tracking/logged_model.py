"""The model of a run in MLflow: code and weights, no pickle, and the same bits on every machine."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from refashion.base import files
from refashion.data.catalogue import DATASETS
from refashion.runs.run import WEIGHTS, Run
from refashion.tracking import contents, view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities import Run as MlflowRun

PACKAGE = Path(__file__).resolve().parents[1]
SCRIPT = Path(__file__).with_name("model_code.py")
CODE = (
    *(
        "__init__.py",
        "base/__init__.py",
        "base/errors.py",
        "base/machine.py",
        "portable/*.py",
        "training/*.py",
    ),
    *("data/__init__.py", "data/catalogue.py", "evaluation/__init__.py", "evaluation/classify.py"),
)
"""What the script imports, and all that these import: the code inside a model."""

ARTIFACTS = {"weights": WEIGHTS, "record": "record.json"}
"""Files of the run that a model takes along, by the names that the script knows them by."""

OF_LOADING = "registered_model_meta"
"""What MLflow writes into a model when it is loaded as a version; Python compiles its code, too."""

REQUIREMENTS = ("mlflow", "numpy", "safetensors", "torch")


@contextmanager
def artifacts(uri: str, client: "MlflowClient") -> Iterator[Path]:
    """Lend artifacts of a run or a model: on this machine themselves, else a copy."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    if uri.startswith("file:"):
        yield _local(uri)
        return
    with TemporaryDirectory() as folder:
        copy = folder
        with suppress(MlflowException):  # there are none
            copy = download_artifacts(uri, dst_path=folder, tracking_uri=client.tracking_uri)
        yield Path(copy)


def fetch(
    published: "MlflowRun", names: Iterable[str], folder: Path, client: "MlflowClient"
) -> None:
    """Copy to a folder those of a run's artifacts with these names that are there, no others."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = published.info.artifact_uri
    if uri.startswith("file:"):
        for name in names:
            if (_local(uri) / name).is_file():
                _copy(_local(uri) / name, folder / name)
        return
    repository = get_artifact_repository(uri, client.tracking_uri)
    for name in names:
        with suppress(MlflowException):  # it is not there
            repository.download_artifacts(name, str(folder))


def make_way(uri: str, names: Iterable[str]) -> None:
    """Remove what stands in the way of files in a folder of artifacts, if it is on this machine.

    That is all that is neither file nor folder: to write to a link is to write to what it leads to.
    """
    if not uri.startswith("file:"):
        return
    folder = _local(uri)
    for path in _special(folder):
        path.unlink()
    for name in names:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        for parent in PurePosixPath(name).parents:
            if (folder / parent).is_file():
                (folder / parent).unlink()


def _local(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))


def _special(folder: Path) -> list[Path]:
    """What is neither file nor folder, but a link or a pipe: in a folder, or in its place."""
    paths = [folder, *folder.rglob("*")]
    return [p for p in paths if p.is_symlink() or (p.exists() and not (p.is_file() or p.is_dir()))]


def _added(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Files of a model that it was not logged with, without those that loading it leaves."""
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    return [
        name
        for name in names
        if name not in digests
        and name != OF_LOADING
        and PurePosixPath(name).parent.name != "__pycache__"
    ]


def about(run: Run) -> dict[str, str]:
    """What the tags of a run's model tell."""
    record = run.record
    return {
        "contract": record.contract,
        "dataset": record.data["dataset"],
        "run": record.name,
        "run_key": record.run_key,
        "weights_sha256": record.outputs["weights"],
    }


def log(
    run: Run, run_id: str, experiment_id: str, client: "MlflowClient"
) -> tuple[str | None, dict[str, str]]:
    """Log the model of a published run: its id and its files' digests; none without classes."""
    from mlflow.entities import LoggedModelOutput

    if not (run.has(WEIGHTS) and DATASETS[run.record.data["dataset"]].classes):
        return None, {}
    name = re.sub(r"[^\w-]", "_", run.name.rpartition("/")[2])  # MLflow takes few characters
    # Not by `mlflow.pyfunc.log_model`: it would open the run again and move its end to now.
    tags = {**about(run), view.DESCRIPTION: view.run_description(run, (), run_id)}
    logged = client.create_logged_model(experiment_id, name, run_id, tags, contents.params(run))
    digests = _log_files(logged, run, client)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return logged.model_id, digests


def _log_files(logged: "LoggedModel", run: Run, client: "MlflowClient") -> dict[str, str]:
    """Log the files of a model; their digests."""
    with TemporaryDirectory() as folder:
        _write(Path(folder), run, logged)
        digests = files.digests(Path(folder))
        make_way(logged.artifact_location, digests)
        client.log_model_artifacts(logged.model_id, folder)
        return digests


def renew(
    published: "MlflowRun", run: Run, digests: Mapping[str, str] | None, client: "MlflowClient"
) -> tuple[str | None, Mapping[str, str]]:
    """Log again the model of a published run, where that is missing or altered; as `log`."""
    models = of_run(published, client)
    if len(models) == 1 and digests and not _altered(models[0], digests, client):
        return models[0].model_id, digests
    for model in models[1:]:
        client.delete_logged_model(model.model_id)
    if models:
        digests = _log_files(models[0], run, client)
        _remove_added(models[0], digests, client)
        return models[0].model_id, digests
    return log(run, published.info.run_id, published.info.experiment_id, client)


def of_run(published: "MlflowRun", client: "MlflowClient") -> "list[LoggedModel]":
    """The models that were published with a run, the oldest first: one, or none.

    A user may have logged others for it, which do not have our tags.
    """
    run_id, experiment_id = published.info.run_id, published.info.experiment_id
    models = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    own = [model for model in models if "weights_sha256" in model.tags]
    return sorted(own, key=lambda model: model.creation_timestamp)


def is_altered(published: "MlflowRun", digests: Mapping[str, str], client: "MlflowClient") -> bool:
    """Whether a published run has another model than its digests promise, or one without any."""
    models = of_run(published, client)
    return len(models) != bool(digests) or any(_altered(m, digests, client) for m in models)


def _altered(model: "LoggedModel", digests: Mapping[str, str], client: "MlflowClient") -> bool:
    with artifacts(model.artifact_location, client) as folder:
        return bool(files.altered(folder, digests) or _special(folder) or _added(folder, digests))


def _remove_added(model: "LoggedModel", digests: Mapping[str, str], client: "MlflowClient") -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = model.artifact_location
    with artifacts(uri, client) as folder:
        for name in _added(folder, digests):
            get_artifact_repository(uri, client.tracking_uri).delete_artifacts(name)


def _write(folder: Path, run: Run, logged: "LoggedModel") -> None:
    """Write a model as MLflow lays it out.

    `mlflow.pyfunc.save_model` would run the script, and so import torch, for 1.5 s.
    """
    import numpy as np
    from mlflow import pyfunc
    from mlflow.models import Model, infer_signature
    from mlflow.types import Schema, TensorSpec

    classes = DATASETS[run.record.data["dataset"]].classes
    shutil.copyfile(SCRIPT, folder / SCRIPT.name)
    artifacts = {}
    for name, file in ARTIFACTS.items():
        artifacts[name] = {"path": f"artifacts/{file}", "uri": f"{logged.source_run_id}/{file}"}
        _copy(run.file(file), folder / "artifacts" / file)
    for pattern in CODE:
        for source in PACKAGE.glob(pattern):
            _copy(source, folder / "code" / PACKAGE.name / source.relative_to(PACKAGE))
    image = np.linspace(0, 255, 784).astype(np.uint8).reshape(1, 28, 28)
    answer = {"class": "", "probabilities": dict.fromkeys(classes, 0.1)}
    signature = infer_signature(image, [answer])
    # With uint8, MLflow would cut fractions off and know one shape: the model checks images.
    signature.inputs = Schema([TensorSpec(np.dtype(object), (-1,))])
    example = {"type": "ndarray"}
    for key, name in (("artifact_path", "input"), ("serving_input_path", "serving_input")):
        example[key] = f"{name}_example.json"
        files.write_text(folder / example[key], json.dumps({"inputs": image.tolist()}))
    # Without labels of builds: 2.9.0+cpu is on no index.
    pins = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]
    files.write_text(folder / "requirements.txt", "\n".join([*pins, ""]))
    python = {"python": pyfunc.PYTHON_VERSION, "dependencies": ["-r requirements.txt"]}
    files.write_json(folder / "python_env.yaml", python)
    model = Model(
        artifact_path=logged.artifact_location,
        run_id=logged.source_run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
        signature=signature,
        saved_input_example_info=example,
        metadata={**about(run), "classes": list(classes)},
    )
    pyfunc.add_to_model(
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        code="code",
        python_env="python_env.yaml",
        model_code_path=SCRIPT.name,
        artifacts=artifacts,
        streamable=False,
    )
    model.save(folder / "MLmodel")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
