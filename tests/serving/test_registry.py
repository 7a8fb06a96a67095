"""A run becomes a version of a registered model, once, and answers with the same bits."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from publishing import altered
from refashion.base.errors import UserError
from refashion.data.catalogue import DATASETS
from refashion.runs import listing
from refashion.serving import predict, registry
from refashion.tracking import store
from servers import serving


def files_of(name: str) -> Path:
    """Where the store keeps the files of a model's first version."""
    uri = mlflow.models.get_model_info(f"models:/{name}/1").artifact_path
    return Path(uri.removeprefix("file://"))


def versions(name: str) -> list[Any]:
    return MlflowClient().search_model_versions(f"name = '{name}'")


def test_version_tells_what_it_is(world: Any) -> None:
    before = MlflowClient().get_run(world.runs["mlp"])
    done = world.register("mlp")
    assert done == registry.Registration(
        name="fashion_mnist-mlp", version="1", run_id=world.runs["mlp"], is_new=True
    )
    version = MlflowClient().get_model_version_by_alias(done.name, "champion")
    assert (str(version.version), version.run_id, version.status) == ("1", done.run_id, "READY")
    record = listing.variant(world.workspace, "mlp").record
    info = mlflow.models.get_model_info("models:/fashion_mnist-mlp@champion")
    about = {
        **{"dataset": "fashion_mnist", "run": "mlp", "run_key": record.run_key},
        **{"contract": "native/cpu", "weights_sha256": record.outputs["weights"]},
    }
    assert version.description.startswith("`mlp` on fashion_mnist: hidden layers [256]")
    assert version.tags["test_accuracy"] == str(before.data.metrics["test_accuracy"])
    assert about.items() <= version.tags.items()
    assert about.items() <= info.metadata.items()
    assert info.metadata["classes"] == list(DATASETS["fashion_mnist"].classes)
    assert str(info.signature.inputs) == "[Tensor('object', (-1,))]"
    assert info.signature.outputs.input_names() == ["class", "probabilities"]
    run = MlflowClient().get_run(done.run_id)
    assert (run.info.end_time, run.info.status) == (before.info.end_time, "FINISHED")
    assert info.model_id in {output.model_id for output in run.outputs.model_outputs}


def test_registering_again_makes_no_second_version(world: Any, tmp_path: Path) -> None:
    run_id, name = world.runs["softmax"], tmp_path.name
    for alias, what in (("champion", "registered"), ("b", "already there, alias set")):
        done = world.refashion("register", run_id[:8], "--name", name, "--alias", alias)
        assert done.stdout == f"models:/{name}@{alias}: version 1, run {run_id}: {what}\n"
    assert len(versions(name)) == 1
    assert set(MlflowClient().get_model_version(name, "1").aliases) == {"champion", "b"}
    assert world.register("mlp", name).version == "2"  # of another run
    assert str(MlflowClient().get_model_version_by_alias(name, "champion").version) == "2"


def test_from_any_folder(
    told: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own default would be a database in the working directory."""
    monkeypatch.chdir(tmp_path)
    assert told.refashion("register", told.runs["mlp"], "--name", tmp_path.name).exit_code == 0
    image, uri = str(root / "examples" / "boot.png"), f"models:/{tmp_path.name}@champion"
    assert told.refashion("predict", image, "--model", uri).exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_files_hold_no_pickle_and_nothing_from_here(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("uv.lock", "pyproject.toml"):
        (tmp_path / file).write_text("")
    monkeypatch.chdir(tmp_path)
    world.register("mlp", tmp_path.name)
    # Whoever has loaded the model from here has left Python's cache.
    written = (file for file in files_of(tmp_path.name).rglob("*") if file.is_file())
    files = [file for file in written if file.parent.name != "__pycache__"]
    suffixes = {".json", ".safetensors", ".py", ".yaml", ".txt", ""}
    assert {file.suffix for file in files} == suffixes
    assert {file.name for file in files if not file.suffix} <= {"MLmodel", "registered_model_meta"}
    assert not any(file.read_bytes().startswith(b"\x80") for file in files)
    requirements = (files_of(tmp_path.name) / "requirements.txt").read_text().split()
    assert requirements == [
        f"{package}=={metadata.version(package).partition('+')[0]}"
        for package in ("mlflow", "numpy", "safetensors", "torch")
    ]


LOAD = """
import json, sys
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
images = numpy.load(sys.argv[2])
modules = {k: m.__file__ for k, m in sys.modules.items() if k.partition(".")[0] == "refashion"}
print(json.dumps([model.predict(images), modules, "dvc" in sys.modules]))
"""


@pytest.mark.ci
def test_code_that_is_taken_along_is_enough(world: Any, tmp_path: Path) -> None:
    world.register("mlp", tmp_path.name)
    np.save(tmp_path / "images.npy", world.images)
    folder = files_of(tmp_path.name)
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(tmp_path / "images.npy")],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer, modules, needs_dvc = json.loads(done.stdout)
    assert json.dumps(answer) == json.dumps(world.answers("mlp"))  # the classes in their order
    assert {Path(file).is_relative_to(folder / "code") for file in modules.values()} == {True}
    assert not needs_dvc and "refashion.base.params" not in modules


def test_altered_run_is_not_registered(world: Any, tmp_path: Path) -> None:
    file = world.artifact("mlp", "record.json")
    with altered(file), pytest.raises(UserError, match=r"record.json was altered after it was"):
        world.register("mlp", tmp_path.name)
    assert versions(tmp_path.name) == []


def test_text_must_mean_one_run(world: Any) -> None:
    with store.connect(world.workspace, reading=True) as connected:
        ids = ", ".join(f"{variant} {world.runs[variant]}" for variant in ("mlp", "softmax"))
        for text, told in (
            ("puffy-hake", f"puffy-hake: means 2 runs; give the id of one: {ids}"),
            ("nonsense", "nonsense: no run or experiment of that name"),
            (world.runs["weight_decay/decay_0"], "has no model; choose a run of a variant$"),
        ):
            with pytest.raises(UserError, match=told):
                registry.one_run(text, connected)
        run_id = world.runs["mlp"]
        assert registry.one_run(run_id[:8], connected).info.run_id == run_id


def test_run_whose_model_is_gone_is_to_be_published_anew(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlflowClient, "search_logged_models", lambda *_: [])
    told = "has no model; choose a run of a variant, or delete this run in MLflow and publish"
    with pytest.raises(UserError, match=told):
        world.register("mlp")


@pytest.mark.parametrize("alias", ["", "latest", "Latest", "v2", "a b", "a@b", "é"])
def test_illegal_alias_is_refused_before_anything_is_made(
    world: Any, tmp_path: Path, alias: str
) -> None:
    with pytest.raises(UserError, match="is not legal"):
        world.register("mlp", tmp_path.name, alias)
    assert versions(tmp_path.name) == []


@pytest.mark.parametrize("name", ["", " ", "a?b", "a/b", "a:b", "a\nb"])
def test_name_that_could_not_be_loaded_is_refused_before_anything_is_made(
    world: Any, name: str
) -> None:
    before = MlflowClient().search_registered_models()
    with pytest.raises(UserError, match="is not legal in models:/NAME"):
        world.register("mlp", name)
    assert [m.name for m in MlflowClient().search_registered_models()] == [m.name for m in before]


@pytest.mark.parametrize("name", ["a b", "a#b@c;d%41&e=é"])
def test_name_that_is_odd_can_be_loaded(world: Any, name: str) -> None:
    world.register("mlp", name)
    for uri in (f"models:/{name}@champion", f"models:/{name}/1"):
        assert predict.load(world.workspace, uri).name == "mlp"


@pytest.mark.ci
def test_server_of_mlflow_keeps_the_model(
    world: Any, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    with serving(f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "artifacts") as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        mlflow.set_tracking_uri(address)
        monkeypatch.setitem(world.runs, "mlp", "")  # to be what it was at the end
        world.publish("mlp")
        assert world.register("mlp", "clothes").is_new
        assert not world.register("mlp", "clothes", "challenger").is_new
        loaded = mlflow.pyfunc.load_model("models:/clothes@challenger")
        assert loaded.predict(world.images) == world.answers("mlp")
