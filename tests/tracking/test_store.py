"""Where results go, and that a store which does not answer is told at once."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.tracking import store


@pytest.fixture
def silent() -> Iterator[str]:
    """Give a server that takes every connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refused(made_up: SimpleNamespace) -> str:
    """Give an address where nobody listens."""
    return f"http://127.0.0.1:{made_up.free_port()}"


@pytest.mark.parametrize("kind", ["silent", "refused"])
def test_dead_server_is_told_in_time_in_one_line(
    kind: str, request: pytest.FixtureRequest, made_up: SimpleNamespace
) -> None:
    uri = request.getfixturevalue(kind)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "stages", "track"],
        cwd=paths.ROOT,
        env=made_up.environment(MLFLOW_TRACKING_URI=uri),
        capture_output=True,
        text=True,
    )
    assert time.monotonic() - started < 15
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: MLflow at {uri}: ")
    assert "`dvc repro track`" in line
    assert "Traceback" not in line


def test_server_that_dies_later_is_told_in_time(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_check_alive", lambda *_: None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"^MLflow at http.*`dvc repro track`"), store.connect():
        pass
    assert time.monotonic() - started < 14


def test_users_own_patience_stays(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(UserError, match="no answer within 1 s"), store.connect():
        pass


def test_password_is_not_shown(refused: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_password = refused.replace("//", "//me:secret@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", with_password)
    with pytest.raises(UserError) as error, store.connect():
        pass
    assert "secret" not in str(error.value)
    assert refused in str(error.value)


def test_database_server_that_is_away(
    made_up: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = made_up.free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:secret@127.0.0.1:{port}/runs")
    told = f"^MLflow at postgresql://127.0.0.1:{port}/runs: .*refused"
    with pytest.raises(UserError, match=told), store.connect():
        pass


def test_relative_database_starts_at_the_users_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (checkout / "mlflow.db").rename(checkout / "runs.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    with store.connect() as found:
        assert found.uri == f"sqlite:///{checkout / 'runs.db'}"
        assert found.artifacts == (checkout / "mlflow-artifacts").as_uri()
        assert found.lock
    assert sorted(p.name for p in checkout.glob("*.db*")) == ["runs.db", "runs.db.lock"]


def test_file_that_is_no_database(checkout: Path) -> None:
    (checkout / "mlflow.db").write_text("something else")
    with pytest.raises(UserError, match=r"mlflow\.db: not an SQLite database"), store.connect():
        pass


def test_database_in_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////nowhere/at/all.db")
    with pytest.raises(UserError, match=r"/nowhere/at/all\.db: its folder"), store.connect():
        pass


def test_lock_that_is_never_released(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import filelock

    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    with (
        filelock.FileLock(checkout / "mlflow.db.lock"),
        pytest.raises(UserError, match=r"mlflow.db.lock: another publisher"),
        store.connect(),
    ):
        pass
