"""Publishing runs in tests, in this process or beside others, and what came of it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.entities import Run as MlflowRun

from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.runs import listing
from refashion.tracking import context, publish, store
from refashion.tracking.context import Context
from refashion.tracking.publish import Publication

CONTEXT = Context(
    commit="c" * 40, diff=b"a diff\n", experiment=None, baseline=None, environment="torch==1\n"
)
EXPERIMENT = replace(CONTEXT, experiment="puffy-hake", baseline="b" * 40)


def tell(workspace: Workspace, *names: str, context: Context = CONTEXT) -> list[Publication]:
    """Publish runs by their names."""
    runs = [listing.find(workspace, name) for name in names]
    with store.connect(workspace) as connected:
        return list(publish.publish_all(runs, context, connected, workspace))


def address(workspace: Workspace) -> str:
    """Address of the workspace's database."""
    return f"sqlite:///{store.default_database(workspace)}"


def published(uri: str) -> list[MlflowRun]:
    """All runs of a store that are not deleted."""
    client = MlflowClient(tracking_uri=uri)
    return client.search_runs([e.experiment_id for e in client.search_experiments()])


def the_run(workspace: Workspace) -> MlflowRun:
    """The only one that is published to the database of a workspace."""
    (run,) = published(address(workspace))
    return run


def models(uri: str) -> list[LoggedModel]:
    """All logged models of a store that are not deleted."""
    client = MlflowClient(tracking_uri=uri)
    return client.search_logged_models([e.experiment_id for e in client.search_experiments()])


def artifacts(run: MlflowRun) -> Path:
    """Folder of a run's artifacts."""
    return Path(run.info.artifact_uri.removeprefix("file://"))


@contextmanager
def altered(file: Path) -> Iterator[None]:
    """Alter the last bit of a file's content for a while."""
    content = file.read_bytes()
    end = len(content.rstrip(b'\n}" '))
    file.write_bytes(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:])
    yield
    file.write_bytes(content)


def die(*_: Any) -> None:
    """End like a process that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def be_publisher(uri: str) -> None:
    """Let a process of its own publish to a store, without pictures."""
    # Eight processes on few cores: patience is not what is tested here.
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
    of_run.draw = lambda run, workspace: {}


def publish_study(root: Path, uri: str, study: str) -> dict[str, str]:
    """Publish a study in a process of its own, as a large one: ids of its runs, by name."""
    be_publisher(uri)
    publish.MANY = 0
    workspace = Workspace(root)
    names = [run.name for run in listing.of_study(workspace, study)]
    return {done.name: done.run_id for done in tell(workspace, *names)}


def publish_softmax(
    root: Path, uri: str, experiment: str = "", deadly: str = ""
) -> tuple[str, str]:
    """Publish in a process of its own, or die in a method of MLflow's client."""
    be_publisher(uri)
    if experiment:
        os.environ["DVC_EXP_NAME"] = experiment
    if deadly:
        setattr(MlflowClient, deadly, die)
    (done,) = tell(Workspace(root), "softmax", context=context.gather(root))
    return done.outcome, done.run_id
