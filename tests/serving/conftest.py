"""A checkout whose runs were published to a database."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pytest

from refashion.base.workspace import Workspace
from refashion.evaluation import model
from refashion.pictures import of_run
from refashion.runs import listing
from refashion.serving import classify, registry
from refashion.tracking import publish, store
from refashion.tracking.context import Context
from synthetic import write_study, write_workspace

CONTEXT = Context(
    commit="c" * 40, diff=b"", experiment="puffy-hake", baseline="b" * 40, environment=""
)
Altered = Callable[[Path], AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class World:
    """A checkout, and what its database knows of it."""

    workspace: Workspace
    runs: dict[str, str]
    """MLflow's id of each run."""
    images: np.ndarray
    """uint8 [5, 28, 28]."""

    def artifact(self, run: str, name: str) -> Path:
        """Give a file that MLflow keeps of a run."""
        folder = self.workspace.root / "mlflow-artifacts" / "fashion_mnist" / self.runs[run]
        return folder / "artifacts" / name

    def publish(self, *names: str) -> None:
        """Publish runs, and remember their ids."""
        runs = [listing.find(self.workspace, name) for name in names]
        with store.connect(self.workspace) as connected, pytest.MonkeyPatch.context() as patch:
            patch.setattr(of_run, "draw", lambda run, workspace: {})  # takes seconds
            for done in publish.publish_all(runs, CONTEXT, connected, self.workspace):
                self.runs[done.name] = done.run_id

    def register(self, run: str, name: str, alias: str = "champion") -> registry.Registration:
        """Register a run's model."""
        with store.connect(self.workspace, reading=True) as connected:
            found = registry.one_run(self.runs[run], connected)
            return registry.register(found, alias, connected, name=name)

    def expected(self, variant: str) -> np.ndarray:
        """What the model of a variant answers to the images."""
        weights = model.load(listing.variant(self.workspace, variant))
        return classify.probabilities(weights, self.images)


@pytest.fixture(scope="session")
def altered() -> Altered:
    """Give a context in which the last bit of a file's content is not what it was."""

    @contextmanager
    def changed(file: Path) -> Iterator[None]:
        content = file.read_bytes()
        end = len(content.rstrip(b'\n}" '))
        file.write_bytes(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:])
        yield
        file.write_bytes(content)

    return changed


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with MLflow's tables."""
    workspace = Workspace(tmp_path_factory.mktemp("empty"))
    with store.connect(workspace):
        return store.default_database(workspace)


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> World:
    """Publish; not to be changed for good."""
    workspace = write_workspace(tmp_path_factory.mktemp("told"))
    write_study(workspace, "weight_decay", "decay_0")
    shutil.copyfile(empty_database, store.default_database(workspace))
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    world = World(workspace=workspace, runs={}, images=images)
    world.publish("mlp", "softmax", "weight_decay/decay_0")
    return world


@pytest.fixture
def world(told: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Work in the checkout, by its database."""
    uri = f"sqlite:///{store.default_database(told.workspace)}"
    monkeypatch.setattr(Workspace, "here", lambda: told.workspace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield told
    mlflow.set_tracking_uri(None)
