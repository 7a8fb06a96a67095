"""Where results go, and that a store which does not answer is told at once."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.tracking import store
from servers import environment, free_port


@pytest.fixture
def silent() -> Iterator[str]:
    """Give a server that takes every connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refused() -> str:
    """Give an address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.mark.parametrize("kind", ["silent", "refused"])
def test_dead_server_is_told_in_time_in_one_line(
    kind: str, request: pytest.FixtureRequest, root: Path
) -> None:
    uri = request.getfixturevalue(kind)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "stages", "track", "softmax"],
        cwd=root,
        env=environment(MLFLOW_TRACKING_URI=uri),
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - started < 15
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: MLflow at {uri}: ")
    assert line.endswith("no result is lost: when that is mended, `dvc repro` publishes them")


def test_server_that_dies_later_is_told_in_time(
    silent: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_check_alive", lambda *_: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^MLflow at http.*`dvc repro`"), store.connect(workspace):
        pass
    assert time.monotonic() - started < 8  # it is tried twice


def test_users_own_patience_stays(
    silent: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(UserError, match="no answer within 1 s"), store.connect(workspace):
        pass


def test_password_is_not_shown(
    refused: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_password = refused.replace("//", "//me:secret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", with_password)
    with pytest.raises(UserError) as error, store.connect(workspace):
        pass
    assert "secret" not in str(error.value)
    assert refused in str(error.value)


def test_database_server_that_is_away(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:secret@127.0.0.1:{port}/runs")
    told = f"^MLflow at postgresql://127.0.0.1:{port}/runs: .*refused"
    with pytest.raises(UserError, match=told), store.connect(workspace):
        pass


@pytest.mark.parametrize("temporary", [False, True])
def test_relative_database_starts_at_the_users_checkout(
    workspace: Workspace, temporary: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also from the temporary folder of an experiment."""
    root = workspace.root
    (root / "mlflow.db").rename(root / "runs.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    if temporary:
        monkeypatch.setenv("DVC_ROOT", str(root))
        workspace = Workspace(tmp_path)
    with store.connect(workspace) as connected:
        assert connected.uri == f"sqlite:///{root / 'runs.db'}"
        assert connected.artifacts == (root / "mlflow-artifacts").as_uri()
        with pytest.raises(filelock.Timeout), connected.lock:
            filelock.FileLock(root / "runs.db.lock", timeout=0).acquire()
    assert sorted(p.name for p in root.glob("*.db*")) == ["runs.db", "runs.db.lock"]


def test_missing_database_is_not_made_for_a_reader(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    told = r"mlflow\.db: no such database; publish with `make repro`"
    with pytest.raises(UserError, match=told), store.connect(workspace, reading=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database(workspace: Workspace) -> None:
    store.default_database(workspace).write_text("something else")
    with (
        pytest.raises(UserError, match=r"mlflow\.db: not an SQLite database"),
        store.connect(workspace),
    ):
        pass


def test_database_in_a_folder_that_is_not_there(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/at/all.db")
    with (
        pytest.raises(UserError, match=r"/nowhere/at/all\.db: its folder"),
        store.connect(workspace),
    ):
        pass


def test_lock_that_is_never_released(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    with (
        filelock.FileLock(workspace.root / "mlflow.db.lock"),
        pytest.raises(UserError, match=r"mlflow\.db\.lock: another publisher"),
        store.connect(workspace),
    ):
        pass
