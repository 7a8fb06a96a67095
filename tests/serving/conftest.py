"""A checkout whose runs were published to a database."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from publishing import EXPERIMENT, address, tell
from refashion import cli
from refashion.base.workspace import Workspace
from refashion.data.catalogue import DATASETS
from refashion.evaluation import model
from refashion.pictures import of_run
from refashion.portable.softmax import softmax
from refashion.runs import listing
from refashion.serving import registry
from refashion.tracking import store
from refashion.training.portable import outputs
from synthetic import write_study, write_workspace


@dataclass(frozen=True, kw_only=True)
class World:
    """A checkout, and what its database knows of it."""

    workspace: Workspace
    runs: dict[str, str]
    """MLflow's id of each run."""
    images: np.ndarray
    """uint8 [5, 28, 28]."""

    def artifact(self, run: str, name: str) -> Path:
        """A file that MLflow keeps of a run."""
        folder = self.workspace.root / "mlflow-artifacts" / "fashion_mnist" / self.runs[run]
        return folder / "artifacts" / name

    def publish(self, *names: str) -> None:
        """Publish runs, and remember their ids."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(of_run, "draw", lambda run, workspace: {})  # takes seconds
            for done in tell(self.workspace, *names, context=EXPERIMENT):
                self.runs[done.name] = done.run_id

    def register(
        self, run: str, name: str | None = None, alias: str = "champion"
    ) -> registry.Registration:
        """Register a run's model."""
        with store.connect(self.workspace, reading=True) as connected:
            mlflow_run = registry.one_run(self.runs[run], connected)
            return registry.register(mlflow_run, alias, connected, name=name)

    def expected(self, variant: str) -> np.ndarray:
        """Probabilities of the images by the portable arithmetic and a variant's weights."""
        weights = model.load(listing.variant(self.workspace, variant))
        return softmax(outputs(weights, torch.tensor(self.images.reshape(-1, 784)))).numpy()

    def answers(self, variant: str) -> list[dict[str, Any]]:
        """What a registered model of a variant answers to them."""
        classes, rows = DATASETS["fashion_mnist"].classes, self.expected(variant)
        by_class = [dict(zip(classes, row.tolist(), strict=True)) for row in rows]
        return [{"class": max(p, key=p.__getitem__), "probabilities": p} for p in by_class]

    def refashion(self, *arguments: str) -> Result:
        """Run a command of the project in the checkout."""
        return CliRunner().invoke(cli.main, arguments, obj=self.workspace)


@pytest.fixture(autouse=True)
def search_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the code of models that a test loads: processes that start later would import it."""
    monkeypatch.setattr(sys, "path", sys.path.copy())


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> World:
    """A world to be left as it was."""
    workspace = write_workspace(tmp_path_factory.mktemp("told"))
    write_study(workspace, "weight_decay", "decay_0")
    shutil.copyfile(empty_database, store.default_database(workspace))
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    world = World(workspace=workspace, runs={}, images=images)
    world.publish("mlp", "softmax", "weight_decay/decay_0")
    return world


@pytest.fixture
def world(told: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """That world, with its database as MLflow's own default."""
    uri = address(told.workspace)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield told
    mlflow.set_tracking_uri(None)
