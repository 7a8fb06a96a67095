"""A checkout with results, and a database for them."""

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from refashion.base import paths
from refashion.tracking import store


@pytest.fixture(scope="session")
def made_up() -> SimpleNamespace:
    """Give the functions of made_up.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_up.py"))))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with MLflow's tables, which take a second to make."""
    root = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MAIN_ROOT", root)
        with store.connect():
            return root / "mlflow.db"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory, made_up: SimpleNamespace) -> Path:
    """Give the results of the three variants, to be copied and not changed."""
    root = tmp_path_factory.mktemp("written")
    made_up.write_results(root)
    return root


@pytest.fixture
def checkout(
    tmp_path: Path, written: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Give the user's own checkout, with results, a database and no git."""
    root = shutil.copytree(written, tmp_path / "checkout")
    shutil.copyfile(empty_database, root / "mlflow.db")
    monkeypatch.setattr(paths, "MAIN_ROOT", root)
    return root
