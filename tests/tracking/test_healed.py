"""A published run that was altered is noticed, and whole again when it is published again."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunTag

from publishing import CONTEXT, address, altered, artifacts, models, published, tell, the_run
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.serving import registry
from refashion.tracking import integrity, publish, store
from refashion.tracking.published import holding, read
from servers import serving

LATER = replace(CONTEXT, commit="d" * 40, diff=b"another\n", environment="torch==2\n")


@pytest.fixture(autouse=True)
def default_store(workspace: Workspace) -> Iterator[None]:
    """Make the workspace's database MLflow's own default, where it looks for models."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", address(workspace))
        mlflow.set_tracking_uri(address(workspace))
        yield
        mlflow.set_tracking_uri(None)


@pytest.fixture
def run(workspace: Workspace) -> MlflowRun:
    """A run that is published."""
    (workspace.root / "dvc.lock").write_text("schema: '2.0'\n")
    tell(workspace, "mlp")
    return the_run(workspace)


def fault(workspace: Workspace) -> str:
    """What the only run is refused for, to whoever reads it or registers its model; or nothing."""
    folder = workspace.root / "read"
    shutil.rmtree(folder, ignore_errors=True)
    with store.connect(workspace, reading=True) as connected:
        try:
            read(the_run(workspace), folder, connected)
            registry.register(the_run(workspace), "champion", connected)
        except UserError as error:
            return str(error)
    return ""


def assert_healed(workspace: Workspace, run: MlflowRun, told: str) -> None:
    """The fault is told, then healed at once and for good, and the run stays the same one."""
    assert told in fault(workspace)
    for outcome in ("healed", "already there"):
        (done,) = tell(workspace, "mlp")
        assert (done.outcome, done.run_id) == (outcome, run.info.run_id)
    assert fault(workspace) == ""


def content(run: MlflowRun) -> dict[str, bytes]:
    """All artifacts but their digests, which are others when the model was written again."""
    files = [f for f in artifacts(run).rglob("*") if f.is_file() and f.name != integrity.DIGESTS]
    return {str(f.relative_to(artifacts(run))): f.read_bytes() for f in files}


def test_every_artifact_is_healed(workspace: Workspace, run: MlflowRun) -> None:
    before = content(run)
    assert len(before) == 13
    for name in [*before, integrity.DIGESTS]:
        file = artifacts(run) / name
        with altered(file):
            damaged = file.read_bytes()
        for damage, told in ((damaged, "was altered after it was published"), (None, "is missing")):
            file.unlink() if damage is None else file.write_bytes(damage)
            assert fault(workspace).startswith(f"run {run.info.run_id}: its artifact {name} {told}")
            assert tell(workspace, "mlp")[0].outcome == "healed"
            assert content(run) == before
    assert fault(workspace) == ""


@pytest.mark.parametrize("value", ["--help", None])
def test_every_tag_is_healed(
    workspace: Workspace, client: MlflowClient, run: MlflowRun, value: str | None
) -> None:
    promised = json.loads((artifacts(run) / integrity.DIGESTS).read_text())["tags"]
    assert {"name", "commit", "dirty", "run_key", "contract", "weights_sha256"} <= promised.keys()
    for tag in [*promised, integrity.RESULT, integrity.EVALUATION, integrity.OF_DIGESTS]:
        if value:
            client.set_tag(run.info.run_id, tag, value)
        else:
            client.delete_tag(run.info.run_id, tag)
        is_digest = value and tag == integrity.OF_DIGESTS
        what = "artifact digests.json" if is_digest else f"tag {tag}"
        assert fault(workspace).startswith(f"run {run.info.run_id}: its {what} ")
        (done,) = tell(workspace, "mlp")
        assert (done.run_id, done.outcome) == (run.info.run_id, "healed")
        tags = the_run(workspace).data.tags
        assert {**tags, integrity.OF_DIGESTS: run.data.tags[integrity.OF_DIGESTS]} == run.data.tags
    assert fault(workspace) == ""


@pytest.mark.parametrize("step", [0, 7])
def test_a_metric_is_healed(
    workspace: Workspace, client: MlflowClient, run: MlflowRun, step: int
) -> None:
    """Of a later step it cannot be outdone: the run is published anew."""
    client.log_metric(run.info.run_id, "test_accuracy", 0.999, step=step)
    assert "its metric test_accuracy was altered" in fault(workspace)
    (done,) = tell(workspace, "mlp")
    assert (done.outcome, done.run_id == run.info.run_id) == ("healed", step == 0)
    assert fault(workspace) == ""
    assert [d.outcome for d in tell(workspace, "mlp")] == ["already there"]


def test_params_take_a_new_run(workspace: Workspace, run: MlflowRun) -> None:
    with sqlite3.connect(store.default_database(workspace)) as connection:
        connection.execute("UPDATE params SET value = '0.2' WHERE key = 'lr'")
    assert "its params are not those of its record" in fault(workspace)
    (done,) = tell(workspace, "mlp")
    assert done.outcome == "healed" and done.run_id != run.info.run_id
    assert fault(workspace) == ""
    assert [model.source_run_id for model in models(address(workspace))] == [done.run_id]


def damage_weights(folder: Path, client: MlflowClient, model_id: str) -> None:
    (folder / "artifacts" / "weights.safetensors").write_bytes(b"else")


def shadow_code(folder: Path, client: MlflowClient, model_id: str) -> None:
    added = folder / "code" / "refashion" / "base" / "errors" / "__init__.py"
    added.parent.mkdir(exist_ok=True)
    added.write_text("raise RuntimeError('this was run')\n")


def link_code(folder: Path, client: MlflowClient, model_id: str) -> None:
    elsewhere = folder.parents[4] / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").write_text("raise RuntimeError('this was run')\n")
    (folder / "code" / "refashion" / "base" / "errors").symlink_to(elsewhere)


def remove_files(folder: Path, client: MlflowClient, model_id: str) -> None:
    shutil.rmtree(folder)


def delete(folder: Path, client: MlflowClient, model_id: str) -> None:
    client.delete_logged_model(model_id)


def add(folder: Path, client: MlflowClient, model_id: str) -> None:
    model = client.get_logged_model(model_id)
    client.create_logged_model(model.experiment_id, "mlp", model.source_run_id, model.tags)


@pytest.mark.parametrize(
    "damage", [damage_weights, shadow_code, link_code, remove_files, delete, add]
)
def test_the_model_is_healed(
    workspace: Workspace,
    client: MlflowClient,
    run: MlflowRun,
    damage: Callable[[Path, MlflowClient, str], None],
) -> None:
    (model,) = models(address(workspace))
    damage(Path(model.artifact_location.removeprefix("file://")), client, model.model_id)
    assert_healed(workspace, run, "its model was altered")
    (after,) = models(address(workspace))
    assert (after.model_id == model.model_id) is (damage is not delete)
    assert after.source_run_id == run.info.run_id


def test_a_model_that_was_loaded_is_as_it_was(workspace: Workspace, run: MlflowRun) -> None:
    (model,) = models(address(workspace))
    folder = Path(model.artifact_location.removeprefix("file://"))
    for name in ("registered_model_meta", "code/refashion/__pycache__/__init__.cpython-311.pyc"):
        files.write_text(folder / name, "")
    assert fault(workspace) == ""
    assert tell(workspace, "mlp")[0].outcome == "already there"


def link_file(folder: Path, elsewhere: Path) -> None:
    (folder / "record.json").unlink()
    (folder / "record.json").symlink_to(elsewhere / "record.json")


def link_all(folder: Path, elsewhere: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(elsewhere)


def pipe(folder: Path, elsewhere: Path) -> None:
    (folder / "history.csv").unlink()
    os.mkfifo(folder / "history.csv")


def make_folder(folder: Path, elsewhere: Path) -> None:
    (folder / "history.csv").unlink()
    (folder / "history.csv").mkdir()


def make_file(folder: Path, elsewhere: Path) -> None:
    shutil.rmtree(folder / "figures")
    (folder / "figures").write_text("")


@pytest.mark.parametrize("damage", [link_file, link_all, pipe, make_folder, make_file])
def test_nothing_outside_the_artifacts_is_written(
    workspace: Workspace, damage: Callable[[Path, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_run, "draw", lambda run, workspace: {"curves": b"a picture"})
    tell(workspace, "mlp")
    elsewhere = workspace.root / "elsewhere"
    files.write_text(elsewhere / "record.json", "mine")
    damage(artifacts(the_run(workspace)), elsewhere)
    assert_healed(workspace, the_run(workspace), "its artifact ")
    assert {file.name: file.read_text() for file in elsewhere.iterdir()} == {"record.json": "mine"}


def forge(run: MlflowRun, content: str, client: MlflowClient) -> None:
    """Replace a run's digests, and their tag too."""
    file = artifacts(run) / integrity.DIGESTS
    file.write_text(content)
    client.set_tag(run.info.run_id, integrity.OF_DIGESTS, files.sha256(file))


@pytest.mark.parametrize(
    "forged",
    [
        *("nonsense", "[1]", '{"files": [], "tags": []}', "[" * 100_000),
        {"tags": ...},
        {"files": {}},
        {"tags": {"name": 5}},
        {"model": ["weights"]},
        {"files": {"../record.json": "f" * 64}},
        {"files": {"/etc/hostname": "f" * 64}},
        {"model": {"a" * 300: "f" * 64}},
    ],
    ids=lambda forged: str(forged)[:20],
)
def test_forged_digests_are_healed(
    workspace: Workspace, client: MlflowClient, run: MlflowRun, forged: str | dict[str, Any]
) -> None:
    if isinstance(forged, dict):
        promise = json.loads((artifacts(run) / integrity.DIGESTS).read_text())
        if forged.get("files"):
            forged = {"files": promise["files"] | forged["files"]}
        forged = json.dumps({k: v for k, v in (promise | forged).items() if v is not ...})
    forge(run, forged, client)
    with store.connect(workspace) as connected:
        assert holding(["0123456"], connected) == []
    assert_healed(workspace, run, "its artifact digests.json was altered")


def test_a_forged_record_takes_a_new_run(
    workspace: Workspace, client: MlflowClient, run: MlflowRun
) -> None:
    """Its digest was forged too."""
    promise = json.loads((artifacts(run) / integrity.DIGESTS).read_text())
    (artifacts(run) / "record.json").write_text("{}")
    promise["files"]["record.json"] = files.sha256(artifacts(run) / "record.json")
    forge(run, json.dumps(promise), client)
    assert "layout" in fault(workspace)
    assert tell(workspace, "mlp")[0].outcome == "healed"
    assert fault(workspace) == ""
    assert tell(workspace, "mlp")[0].outcome == "already there"


def test_a_run_without_the_tag_of_its_weights_holds_nothing(
    workspace: Workspace, client: MlflowClient, run: MlflowRun
) -> None:
    promise = json.loads((artifacts(run) / integrity.DIGESTS).read_text())
    weights = promise["tags"].pop("weights_sha256")
    with store.connect(workspace) as connected:
        assert len(holding([weights], connected)) == 1
        forge(run, json.dumps(promise), client)
        client.delete_tag(run.info.run_id, "weights_sha256")
        assert holding([weights], connected) == []


def test_tags_of_a_model_are_not_believed(
    workspace: Workspace, client: MlflowClient, run: MlflowRun
) -> None:
    (model,) = models(address(workspace))
    client.set_logged_model_tags(model.model_id, {"dataset": "mnist", "weights_sha256": "f" * 64})
    with store.connect(workspace, reading=True) as connected:
        done = registry.register(run, "champion", connected)
    assert done.name == "fashion_mnist-mlp"
    tags = client.get_model_version(done.name, done.version).tags
    assert tags["weights_sha256"] == run.data.tags["weights_sha256"]


def test_what_the_user_added_stays_and_is_not_read(
    workspace: Workspace, client: MlflowClient, run: MlflowRun
) -> None:
    run_id = run.info.run_id
    client.log_text(run_id, "{}", "attestations/1.json")
    client.log_text(run_id, "trial\n1\n", "trials.csv")
    client.set_tag(run_id, "mine", "too")
    client.create_logged_model(run.info.experiment_id, "mine", run_id)
    assert tell(workspace, "mlp")[0].outcome == "already there"
    (artifacts(run) / "metrics.json").unlink()
    assert_healed(workspace, run, "metrics.json is missing")
    assert {"attestations/1.json", "trials.csv"} <= content(run).keys()
    assert the_run(workspace).data.tags["mine"] == "too"
    assert sorted(model.name for model in models(address(workspace))) == ["mine", "mlp"]
    with store.connect(workspace, reading=True) as connected:
        assert not read(run, workspace.root / "again", connected).run.has("trials.csv")


def test_what_is_here_as_it_was_leaves_the_rest_as_it_was(
    workspace: Workspace, run: MlflowRun
) -> None:
    """Else all of it is of the present checkout: its diff would not apply to another commit."""
    before = content(run)
    (artifacts(run) / "history.csv").unlink()
    (done,) = tell(workspace, "mlp", context=LATER)
    assert (done.outcome, content(run)) == ("healed", before)
    assert the_run(workspace).data.tags["commit"] == CONTEXT.commit
    (artifacts(run) / "environment.txt").unlink()
    (done,) = tell(workspace, "mlp", context=LATER)
    assert (done.outcome, done.run_id) == ("healed", run.info.run_id)
    assert content(run)["environment.txt"] == b"torch==2\n"
    assert content(run)["uncommitted.diff"] == LATER.diff
    assert the_run(workspace).data.tags["commit"] == LATER.commit
    assert fault(workspace) == ""


def test_a_commit_that_was_added_is_not_believed(
    workspace: Workspace, client: MlflowClient
) -> None:
    tell(workspace, "mlp", context=replace(CONTEXT, commit=None, diff=b""))
    run_id = the_run(workspace).info.run_id
    client.log_batch(run_id, tags=[RunTag("commit", "e" * 40), RunTag("dirty", "false")])
    assert "its tag commit was altered" in fault(workspace)
    (done,) = tell(workspace, "mlp", context=replace(CONTEXT, commit=None, diff=b""))
    assert done.outcome == "healed"
    assert fault(workspace) == ""


@pytest.mark.ci
def test_a_run_on_a_server_is_healed(
    workspace: Workspace, empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many runs there, those whose artifacts are gone, or whose evaluation is not told."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    folder = tmp_path / "artifacts"
    with serving(f"sqlite:///{tmp_path}/mlflow.db", folder) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        tell(workspace, "mlp")
        (record,) = folder.glob("*/*/artifacts/record.json")
        (model,) = folder.glob("*/models/*/artifacts")
        (run,) = published(uri)
        client = MlflowClient(tracking_uri=uri)
        for many, damage, outcome in (
            (100, lambda: record.write_text("{}"), "healed"),
            (100, lambda: shadow_code(model, client, ""), "healed"),
            (0, lambda: record.write_text("{}"), "already there"),
            (0, record.unlink, "healed"),
            (0, lambda: shadow_code(model, client, ""), "already there"),
            (0, lambda: client.delete_tag(run.info.run_id, integrity.EVALUATION), "measured anew"),
        ):
            monkeypatch.setattr(publish, "MANY", many)
            damage()
            outcomes = [tell(workspace, "mlp")[0].outcome for _ in range(2)]
            assert outcomes == [outcome, "already there"]
