"""Runs are found by what people call them, and read back whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from publishing import EXPERIMENT, artifacts, tell
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.tracking import integrity, published, store
from refashion.tracking.store import Store


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, written: Path) -> Workspace:
    """A checkout that was published, artifacts not to be changed for good."""
    workspace = Workspace(shutil.copytree(written, tmp_path_factory.mktemp("told") / "checkout"))
    tell(workspace, *(run.name for run in listing.everything(workspace)), context=EXPERIMENT)
    return workspace


@pytest.fixture
def connected(told: Workspace) -> Iterator[Store]:
    with store.connect(told) as connected:
        yield connected


def the_run(name: str, connected: Store) -> MlflowRun:
    (run,) = (run for run in published.complete(connected) if run.data.tags["name"] == name)
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
    connected.client.set_tag(run_id, integrity.PUBLISHED, "elsewhere 1 1")
    assert published.find(run_id, connected) == []  # not whole yet
    connected.client.set_tag(run_id, integrity.PUBLISHED, integrity.COMPLETE)


@pytest.mark.parametrize("what", ["search_experiments", "search_runs"])
def test_found_in_every_page_of_what_mlflow_has(
    connected: Store, told: Workspace, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = getattr(MlflowClient, what)
    monkeypatch.setattr(MlflowClient, what, lambda *a, **k: search(*a, **k, max_results=1))
    assert len(published.complete(connected)) == len(listing.everything(told)) > 1


def test_what_was_added_is_not_opened(connected: Store, tmp_path: Path) -> None:
    run = the_run("softmax", connected)
    added = [artifacts(run) / name for name in ("loop", "nowhere", "pipe")]
    added[0].symlink_to(artifacts(run))
    added[1].symlink_to("nowhere at all")
    os.mkfifo(added[2])
    remote = published.read(run, tmp_path / "run", connected)
    assert not {file.name for file in (tmp_path / "run").iterdir()} & {f.name for f in added}
    assert remote.run.name == "softmax"
    for file in added:
        file.unlink()


def test_beginning_of_several_ids_is_refused(
    connected: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "SHORTEST", 0)
    with pytest.raises(UserError, match=r"8 runs begin so; give more of the id"):
        published.find("", connected)


def test_read_back_as_it_was(connected: Store, told: Workspace, tmp_path: Path) -> None:
    for local in listing.everything(told):
        run = the_run(local.name, connected)
        remote = published.read(run, tmp_path / run.info.run_id, connected)
        assert (remote.id, remote.tags) == (run.info.run_id, run.data.tags)
        for what in ("record", "metrics", "history", "settings", "log", "measured"):
            assert getattr(remote.run, what) == getattr(local, what), what
        for name in local.record.files:
            assert remote.run.file(name).read_bytes() == local.file(name).read_bytes()
        assert remote.run.commit == "c" * 40
        assert remote.run.file("uncommitted.diff").read_bytes() == b"a diff\n"
