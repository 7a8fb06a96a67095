"""Where results go, and that a store which does not answer is told at once."""

import io
import re
import socket
import subprocess
import sys
import time
import urllib.request
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
    """A server that takes every connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def refusal(workspace: Workspace, uri: str = "", *, reading: bool = False) -> str:
    """What a user is told who connects."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as error:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        with store.connect(workspace, reading=reading):
            pass
    return str(error.value)


@pytest.mark.parametrize("listens", [True, False])
def test_dead_server_is_told_in_time_in_one_line(listens: bool, silent: str, root: Path) -> None:
    uri = silent if listens else f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [sys.executable, "stages", "track", "softmax"],
        cwd=root,
        env=environment(MLFLOW_TRACKING_URI=uri),
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: MLflow at {uri}: ")
    assert line.endswith(
        "no result is lost: when that is mended, `refashion publish` publishes them"
    )


def test_server_that_dies_later_is_told_in_time(
    silent: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO())  # once it answers
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    started = time.monotonic()
    assert re.match("MLflow at http.*`refashion publish`", refusal(workspace, silent))
    assert time.monotonic() - started < 8  # it is tried twice


def test_users_own_patience_stays(
    silent: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    assert "no answer within 1 s" in refusal(workspace, silent)


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_password_is_not_shown(workspace: Workspace, scheme: str) -> None:
    server = f"127.0.0.1:{free_port()}/runs"
    told = refusal(workspace, f"{scheme}://me:secret@{server}")
    assert re.match(f"MLflow at {scheme}://{server}: .*refused", told)
    assert "secret" not in told


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
    told = refusal(Workspace(tmp_path), reading=True)
    assert told.startswith(f"{tmp_path}/mlflow.db: no such database; publish with `make repro`")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_a_database(workspace: Workspace) -> None:
    store.default_database(workspace).write_text("something else")
    assert "mlflow.db: not an SQLite database" in refusal(workspace)
    told = refusal(workspace, "sqlite:////nowhere/at/all.db")
    assert told.startswith("/nowhere/at/all.db: its folder does not exist")


def test_lock_that_is_never_released(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    lock = workspace.root / "mlflow.db.lock"
    with filelock.FileLock(lock):
        assert refusal(workspace).startswith(f"{lock}: another publisher has held it")
