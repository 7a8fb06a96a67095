"""A workspace with runs, and a database for them."""

import shutil
from pathlib import Path

import pytest

from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.tracking import store
from synthetic import write_study, write_workspace


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with MLflow's tables, which take seconds to make."""
    workspace = Workspace(tmp_path_factory.mktemp("empty"))
    with store.connect(workspace):
        return store.default_database(workspace)


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the runs of three variants and two studies, to be copied and not changed."""
    workspace = write_workspace(tmp_path_factory.mktemp("written"))
    write_study(workspace, "weight_decay", "decay_0", "decay_3")
    write_study(workspace, "k_fold", "mlp.fold_1", "mlp.fold_2", parent="mlp")
    return workspace.root


@pytest.fixture
def workspace(tmp_path: Path, written: Path, empty_database: Path) -> Workspace:
    """Give the user's own checkout, with runs, a database and no git."""
    workspace = Workspace(shutil.copytree(written, tmp_path / "checkout"))
    shutil.copyfile(empty_database, store.default_database(workspace))
    return workspace


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: pictures have tests of their own, and take most of the time."""
    monkeypatch.setattr(of_run, "draw", lambda run, workspace: {})
