"""Runs are found by what people call them, and read back whole or not at all."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.entities import Run as MlflowRun

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.tracking import publish, published, store
from refashion.tracking.context import Context
from refashion.tracking.store import Store

CONTEXT = Context(
    commit="c" * 40, diff=b"a diff\n", experiment="puffy-hake", baseline=None, environment=""
)


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, written: Path, empty_database: Path
) -> Workspace:
    """A checkout that was published, artifacts not to be changed for good."""
    workspace = Workspace(shutil.copytree(written, tmp_path_factory.mktemp("told") / "checkout"))
    shutil.copyfile(empty_database, store.default_database(workspace))
    with store.connect(workspace) as connected:
        runs = listing.everything(workspace)
        list(publish.publish_all(runs, CONTEXT, connected, workspace))
    return workspace


@pytest.fixture
def connected(told: Workspace) -> Iterator[Store]:
    """The store of that checkout."""
    with store.connect(told) as connected:
        yield connected


def the_run(name: str, connected: Store) -> MlflowRun:
    (run,) = published.with_tag("name", name, connected)
    return run


def test_found_by_id_beginning_and_experiment(connected: Store, told: Workspace) -> None:
    run_id = the_run("mlp", connected).info.run_id
    for text in (run_id, run_id[: published.SHORTEST]):
        assert [run.info.run_id for run in published.find(text, connected)] == [run_id]
    of_experiment = published.find("puffy-hake", connected)
    assert sorted(run.data.tags["name"] for run in of_experiment) == sorted(
        run.name for run in listing.everything(told)
    )
    for nothing in ("puffy", run_id[:5], "0" * 32):
        assert published.find(nothing, connected) == []
    connected.client.set_tag(run_id, "published", "elsewhere 1 1")
    assert published.find(run_id, connected) == []  # not whole yet
    connected.client.set_tag(run_id, "published", publish.COMPLETE)


def test_beginning_of_several_ids_is_refused(
    connected: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "SHORTEST", 0)
    with pytest.raises(UserError, match=r"8 runs begin so; give more of the id"):
        published.find("", connected)


def test_read_back_as_it_was(connected: Store, told: Workspace, tmp_path: Path) -> None:
    for own in listing.everything(told):
        run = the_run(own.name, connected)
        found = published.read(run, tmp_path / run.info.run_id, connected)
        assert (found.id, found.tags) == (run.info.run_id, run.data.tags)
        for what in ("record", "metrics", "history", "settings", "log", "measured"):
            assert getattr(found.run, what) == getattr(own, what), what
        assert found.run.altered() == []
        assert found.run.commit == "c" * 40
        assert found.run.file("uncommitted.diff").read_bytes() == b"a diff\n"


ARTIFACTS = [
    *("record.json", "weights.safetensors", "history.csv", "metrics.json", "predictions.csv"),
    *("params.yaml", "uncommitted.diff", "training_log.json"),
]


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_altered_or_missing_artifact_is_refused(
    connected: Store, tmp_path: Path, name: str
) -> None:
    run = the_run("mlp", connected)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / name
    before = file.read_bytes()
    altered = bytearray(before)
    altered[-3] ^= 1
    try:
        file.write_bytes(altered)
        with pytest.raises(
            UserError, match=rf"^run {run.info.run_id}: its artifact {name} was alt"
        ):
            published.read(run, tmp_path / "altered", connected)
        file.unlink()
        with pytest.raises(UserError, match=rf"^run {run.info.run_id}: its artifact {name} is mis"):
            published.read(run, tmp_path / "missing", connected)
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("tag", ["result", "evaluation"])
def test_tags_of_other_artifacts_are_refused(connected: Store, tmp_path: Path, tag: str) -> None:
    run = the_run("mlp", connected)
    run.data.tags[tag] = "0" * 64
    with pytest.raises(UserError, match="its tags result and evaluation are not those of its"):
        published.read(run, tmp_path / "run", connected)


def test_run_of_an_older_layout_is_refused_naming_its_commit(
    connected: Store, tmp_path: Path
) -> None:
    run = the_run("softmax", connected)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "record.json"
    before = file.read_bytes()
    record = json.loads(before)
    del record["layout"], run.data.tags["files"]
    files.write_json(file, record)
    try:
        with pytest.raises(UserError, match=rf"another layout .*git worktree .* {'c' * 40}`"):
            published.read(run, tmp_path / "run", connected)
    finally:
        file.write_bytes(before)
