"""A workspace with runs, and a database for them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from publishing import address
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.tracking import store
from synthetic import write_study, write_workspace


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Runs of three variants and two studies, and an empty database; to be copied."""
    workspace = write_workspace(tmp_path_factory.mktemp("written"))
    write_study(workspace, "weight_decay", "decay_0", "decay_3")
    write_study(workspace, "k_fold", "mlp.fold_1", "mlp.fold_2", parent="mlp")
    shutil.copyfile(empty_database, store.default_database(workspace))
    return workspace.root


@pytest.fixture
def workspace(tmp_path: Path, written: Path) -> Workspace:
    """The user's own checkout, with runs, a database and no git."""
    return Workspace(shutil.copytree(written, tmp_path / "checkout"))


@pytest.fixture
def client(workspace: Workspace) -> MlflowClient:
    return MlflowClient(tracking_uri=address(workspace))


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """Draw nothing: pictures have tests of their own, and take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "draw", lambda run, workspace: {})
        yield
