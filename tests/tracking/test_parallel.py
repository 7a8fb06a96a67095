"""Publishers that run at the same time, in processes of their own, and one that is killed."""

import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

import servers
from publishing import address, models, publish_softmax, publish_study, published
from refashion.base.workspace import Workspace
from refashion.tracking import integrity, marks, publish
from servers import serving
from synthetic import write_study, write_workspace

# Forked from a process that has imported nearly everything, each starts in no time.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        *("matplotlib.figure", "mlflow.store.tracking.sqlalchemy_store"),
        *("refashion.data.prepared", "refashion.pictures.of_run", "refashion.tracking.publish"),
    ]
)


def alone(*arguments: object) -> tuple[str, str]:
    """Outcome and id of a run that one process publishes."""
    with ProcessPoolExecutor(1, PROCESSES) as pool:
        return pool.submit(publish_softmax, *arguments).result()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[str]:
    """Serve a database of its own."""
    database = tmp_path_factory.mktemp("server") / "mlflow.db"
    shutil.copyfile(empty_database, database)
    with serving(f"sqlite:///{database}", database.with_suffix(".artifacts")) as uri:
        yield uri


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Run PostgreSQL, with MLflow's tables."""
    with servers.postgres() as uri:
        MlflowClient(tracking_uri=uri).search_experiments()  # makes them
        yield uri


@pytest.fixture(params=["SQLite", pytest.param("server", marks=pytest.mark.ci), "postgres"])
def uri(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[str]:
    """Give a database or a server with no run in it."""
    if request.param == "SQLite":
        yield address(workspace)
        return
    uri = request.getfixturevalue(request.param)
    client = MlflowClient(tracking_uri=uri)
    for run in published(uri):  # by other tests
        publish.delete(run, client)
    yield uri


def test_parallel_publishers_lose_nothing_and_repeat_nothing(uri: str, tmp_path: Path) -> None:
    """Three processes for each of two runs, all with the name of an experiment."""
    roots = [write_workspace(tmp_path / str(seed), seed=seed).root for seed in (1, 2)]
    names = [f"e{i}" for i in range(6)]
    with ProcessPoolExecutor(len(names), PROCESSES) as pool:
        told = list(pool.map(publish_softmax, roots * 3, [uri] * 6, names))
    assert {outcome for outcome, _ in told} <= {"published", "already there"}
    runs = published(uri)
    assert len(runs) == 2
    assert {run_id for _, run_id in told} >= {run.info.run_id for run in runs}
    assert sorted(name for run in runs for name in marks.experiments(run)) == names
    for run in runs:
        assert run.data.tags["dvc_exp"].split(",") == marks.experiments(run)
        assert run.data.tags[integrity.PUBLISHED] == "complete"
        assert run.info.status == "FINISHED"
        assert len(run.data.metrics) == 13
        assert len(run.inputs.dataset_inputs) == 2
    sources = sorted(model.source_run_id for model in models(uri))
    assert sources == sorted(run.info.run_id for run in runs)
    assert alone(roots[0], uri)[0] == "already there"


@pytest.mark.ci
@pytest.mark.parametrize("uri", ["postgres"], indirect=True)
def test_four_writers_publish_a_sweep_to_a_team_s_server(
    uri: str, workspace: Workspace, tmp_path: Path
) -> None:
    """A server over PostgreSQL: none of 20 trials is lost or doubled, and all have one parent."""
    trials = [f"mlp.trial_{i}" for i in range(1, 21)]
    write_study(workspace, "rates", *trials, parent="mlp")
    with (
        serving(uri, tmp_path / "artifacts") as uri,
        ProcessPoolExecutor(4, PROCESSES) as pool,
    ):
        told = list(pool.map(publish_study, [workspace.root] * 4, [uri] * 4, ["rates"] * 4))
        runs = {run.data.tags["name"]: run for run in published(uri)}
        assert len(published(uri)) == len(runs) == 21
        assert {run.data.tags[integrity.PUBLISHED] for run in runs.values()} == {"complete"}
        parent_id = runs.pop("rates/mlp").info.run_id
        assert {run.data.tags[publish.PARENT] for run in runs.values()} == {parent_id}
        assert len({run.info.run_name for run in runs.values()}) == 20
        for name, run in runs.items():
            assert (len(run.data.metrics), len(run.data.params)) == (7, 4)
            assert len(run.inputs.dataset_inputs) == 1
            assert run.info.run_id in {ids[name] for ids in told}
        again = pool.submit(publish_study, workspace.root, uri, "rates").result()
        assert again == {
            "rates/mlp": parent_id,
            **{name: run.info.run_id for name, run in runs.items()},
        }


def test_killed_publisher_is_replaced(uri: str, workspace: Workspace) -> None:
    arguments = (workspace.root, uri, "", "log_artifacts")
    killed = PROCESSES.Process(target=publish_softmax, args=arguments)
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    (unfinished,) = published(uri)
    assert unfinished.data.tags[integrity.PUBLISHED] != "complete"
    outcome, run_id = alone(workspace.root, uri)
    assert outcome == "published"
    assert [run.info.run_id for run in published(uri)] == [run_id]
    assert [model.source_run_id for model in models(uri)] == [run_id]
    client = MlflowClient(tracking_uri=uri)
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"record.json", "weights.safetensors"} <= names
    artifacts = client.get_run(run_id).info.artifact_uri
    assert artifacts.startswith("mlflow-artifacts:" if uri.startswith("http") else "file:")
