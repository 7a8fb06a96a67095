"""Where results go, and that a store which does not answer is told at once."""

import io
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import pytest
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine, event

from publishing import address, die, published, tell
from refashion.base.errors import UserError
from refashion.base.machine import HOST
from refashion.base.workspace import Workspace
from refashion.tracking import store
from servers import environment, free_port

PROCESSES = multiprocessing.get_context("fork")  # any other would import MLflow for seconds


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


@pytest.mark.ci
def test_dead_server_is_told_in_time_in_one_line(silent: str, root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "stages", "track", "softmax"],
        cwd=root,
        env=environment(MLFLOW_TRACKING_URI=silent),
        capture_output=True,
        text=True,
        timeout=15,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: MLflow at {silent}: ")
    assert line.endswith(
        "no result is lost: when that is mended, `refashion publish` publishes them"
    )


def test_users_own_patience_stays(
    silent: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a server that is dead, and with one that dies later."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    assert "no answer within 1 s" in refusal(workspace, silent)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO())  # once it answers
    started = time.monotonic()
    assert re.match("MLflow at http.*`refashion publish`", refusal(workspace, silent))
    assert time.monotonic() - started < 6  # it is tried twice


@pytest.mark.parametrize("login", ["me:secret@{}", "{}?user=me&password=secret"])
@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_password_is_not_shown(workspace: Workspace, scheme: str, login: str) -> None:
    server = f"127.0.0.1:{free_port()}/runs"
    told = refusal(workspace, f"{scheme}://{login.format(server)}")
    assert re.match(f"MLflow at {scheme}://{server}: .*refused", told)
    assert "secret" not in told


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://me:secret@SERVER", "API request to http://SERVER/api"),
        ("http://SERVER?token=secret", "API request to http://SERVER"),
        ("postgres://me:secret@h/runs", "unsupported URI 'postgres://h/runs'"),
    ],
)
def test_password_is_not_shown_in_what_mlflow_tells(
    workspace: Workspace, uri: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that dies when it has told that it is alive."""
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO())
    server = f"127.0.0.1:{free_port()}"
    told = refusal(workspace, uri.replace("SERVER", server))
    assert reason.replace("SERVER", server) in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("http://[::1", "no legal address"),
        ("http://a..b:5000", "no legal address"),
        ("postgresql://h:abc/runs", "no legal address"),
        ("http://me:secret/secret@h", "no legal address"),  # the server me
        ("postgresql://me:1/secret@h/runs", "no legal address"),
        ("http://me#secret@h", "no legal address"),
        ("sqlite:////", "/: is a folder; name a file"),
        ("sqlite://runs.db", "checkout: is a folder; name a file"),
        ("sqlite:///mlflow.db?timeout=s", "mlflow.db?timeout=s: could not convert string"),
        ("mysql://me@localhost/runs", "No module named 'MySQLdb'; install this driver"),
    ],
)
def test_odd_address_is_told_in_one_line(workspace: Workspace, uri: str, told: str) -> None:
    line = refusal(workspace, uri)
    assert told in line
    assert "\n" not in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("name", "uri", "value"),
    [("MLFLOW_HTTP_REQUEST_TIMEOUT", "http://h", value) for value in ["abc", "0", "-1", "1e400"]]
    + [("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "sqlite:///new.db", "abc")]
    + [("MLFLOW_LOGGING_LEVEL", "", "verbose")],
)
def test_odd_variable_of_mlflow_is_told(
    workspace: Workspace, name: str, uri: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert re.search(f"{value}.*{name}|{name}={value}: is no", refusal(workspace, uri))


@pytest.mark.parametrize(
    ("uri", "port"),
    [
        ("postgresql://h/runs?sslmode=require", 5432),
        ("postgresql+psycopg://h/runs", 5432),
        ("postgresql://h/runs", "5433"),
        ("postgresql://h:1/runs?host=h2", 1),
        ("mysql+pymysql://h/runs", 3306),
        ("mssql+pymssql://h/runs", 1433),
        ("postgresql://h/runs?host=h2", None),
        ("mysql://localhost/runs", None),
        ("mssql+pyodbc://settings", None),
    ],
)
def test_database_without_a_port_is_asked_at_its_kinds(
    workspace: Workspace, uri: str, port: int | str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow tries a dead one for two minutes. PostgreSQL's port may be set in a variable."""
    asked = []

    def connect(server: tuple[str, int | str], _: float) -> None:
        asked.append(server)
        raise ConnectionRefusedError

    def search(*_: Any, **__: Any) -> None:
        raise ValueError

    monkeypatch.setenv("PGPORT", port if isinstance(port, str) else "")
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(store, "_client", search)
    refusal(workspace, uri)
    assert asked == [("h", port)] * (port is not None)


@pytest.mark.parametrize("folder", ["a?b", "a%41b"])
@pytest.mark.parametrize("uri", ["", "sqlite:///runs.db"])
def test_checkout_whose_path_mlflow_reads_as_another(tmp_path: Path, folder: str, uri: str) -> None:
    """It would publish beside the checkout."""
    root = tmp_path / folder
    root.mkdir()
    told = refusal(Workspace(root), uri)
    assert told.startswith(f"{root / (uri[10:] or 'mlflow.db')}: MLflow opens no database at")
    assert (names(tmp_path), names(root)) == ([folder], [])


@pytest.mark.parametrize("folder", ["a%b", "a#b [c] d"])
def test_checkout_with_an_odd_path(tmp_path: Path, folder: str, empty_database: Path) -> None:
    root = tmp_path / folder
    root.mkdir()
    shutil.copyfile(empty_database, root / "mlflow.db")
    connect(root)
    assert (names(tmp_path), names(root)) == ([folder], ["mlflow.db", "mlflow.db.lock"])


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
    assert "file is not a database; move it away, and `refashion publish`" in refusal(workspace)
    told = refusal(workspace, "sqlite:////nowhere/at/all.db")
    assert told.startswith("/nowhere/at/all.db: its folder does not exist")


def test_lock_that_is_never_released(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    lock = workspace.root / "mlflow.db.lock"
    with filelock.FileLock(lock):
        assert refusal(workspace).startswith(f"{lock}: another publisher has held it")


# --- a database that is made, and killed ---------------------------------------------------------


def connect(root: Path) -> None:
    """Make a database, as a publisher does."""
    with store.connect(Workspace(root)):
        pass


def connect_in_place(root: Path) -> None:
    """Make a database where it is to be, as MLflow does."""
    MlflowClient(tracking_uri=address(Workspace(root))).search_experiments()


def run_until(make: Callable[[Path], None], root: Path, moment: int | str) -> None:
    """Make a database, and die before a statement of SQL, or where a path's method is called."""
    if isinstance(moment, str):
        setattr(Path, moment, die)
    else:
        statements = iter([None] * moment + [die])
        event.listen(Engine, "before_cursor_execute", lambda *_: (next(statements) or bool)())
    make(root)


def killed(make: Callable[[Path], None], root: Path, moment: int | str) -> None:
    """Wait for a process that `run_until` kills."""
    process = PROCESSES.Process(target=run_until, args=(make, root, moment))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def copying(empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called on, a new database is a copy: to make its tables takes seconds."""
    make = SqlAlchemyStore.__init__

    def copy(self: SqlAlchemyStore, uri: str, artifacts: str) -> None:
        if not Path(uri.removeprefix("sqlite:///")).exists():
            shutil.copyfile(empty_database, uri.removeprefix("sqlite:///"))
        make(self, uri, artifacts)

    return lambda: monkeypatch.setattr(SqlAlchemyStore, "__init__", copy)


@pytest.mark.parametrize("moment", [100, "replace"])
def test_killed_while_it_is_made_leaves_none(
    tmp_path: Path, moment: int | str, copying: Callable[[], None]
) -> None:
    if moment == "replace":
        copying()
    killed(connect, tmp_path, moment)
    copying()
    assert not (tmp_path / "mlflow.db").exists()
    assert "no such database" in refusal(Workspace(tmp_path), reading=True)
    connect(tmp_path)
    assert names(tmp_path) == ["mlflow.db", "mlflow.db.lock"]


def test_a_folder_that_was_left_aside_goes_and_others_stay(
    tmp_path: Path, copying: Callable[[], None]
) -> None:
    copying()
    beginning = f".mlflow.db.{HOST}"
    mine = ["mlflow.db.new", f"{beginning}.mine.tmp", f"{beginning}.{os.getppid()}.tmp"]
    for number in (999_999_999, os.getpid()):
        left = f"{beginning}.{number}.tmp"
        for name in (*mine, left):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "mlflow.db-journal").touch()
        connect(tmp_path)
        assert names(tmp_path) == sorted([*mine, "mlflow.db", "mlflow.db.lock"])
        assert all(names(tmp_path / name) == ["mlflow.db-journal"] for name in mine)


def test_a_journal_of_a_former_database_does_no_harm(
    workspace: Workspace, copying: Callable[[], None]
) -> None:
    """It would be rolled back into the database that has its name."""
    copying()
    database = store.default_database(workspace)
    journal = database.with_name("mlflow.db-journal")
    database.unlink()
    former = sqlite3.connect(database, isolation_level=None)
    former.executescript(
        "CREATE TABLE mine (x); INSERT INTO mine VALUES (randomblob(999999));"
        "PRAGMA cache_size = 1; BEGIN; UPDATE mine SET x = randomblob(999999);"
    )
    hot = journal.read_bytes()
    former.close()
    database.unlink()
    journal.write_bytes(hot)
    connect(workspace.root)
    assert not journal.exists()
    assert tell(workspace, "mlp")[0].outcome == "published"


def test_what_mlflow_left_half_made_is_told(
    workspace: Workspace, copying: Callable[[], None]
) -> None:
    """And it comes back as the message says."""
    database = store.default_database(workspace)
    database.unlink()
    killed(connect_in_place, workspace.root, 100)
    copying()
    for reading in (False, True):
        told = refusal(workspace, reading=reading)
        assert told.startswith(f"{database}: was interrupted when it was made; move it away")
    database.rename(workspace.root / "away")
    assert tell(workspace, "mlp")[0].outcome == "published"


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_database_is_made_anew(
    tmp_path: Path, content: bytes | None, copying: Callable[[], None]
) -> None:
    """One without a page, or without a table."""
    copying()
    file = tmp_path / "mlflow.db"
    if content is None:
        with sqlite3.connect(file) as connection:
            connection.execute("VACUUM")
    else:
        file.write_bytes(content)
    assert "no such database" in refusal(Workspace(tmp_path), reading=True)
    connect(tmp_path)
    assert len(published(address(Workspace(tmp_path)))) == 0


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        connection.execute("CREATE TABLE alembic_version (x)")
    before = (tmp_path / "mlflow.db").read_bytes()
    assert "is not MLflow's database; name another" in refusal(Workspace(tmp_path))
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_damaged_pages_are_told(workspace: Workspace) -> None:
    database = store.default_database(workspace)
    content = database.read_bytes()
    database.write_bytes(content[:100] + b"\xff" * 4000 + content[4100:])
    assert re.search(r"malformed; move it away, and `refashion publish` builds", refusal(workspace))


# --- a database that cannot be written to --------------------------------------------------------


@pytest.mark.parametrize(("lock", "reads"), [("EXCLUSIVE", False), ("IMMEDIATE", True)])
def test_a_locked_database_is_called_locked(
    workspace: Workspace, lock: str, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CONNECT_TIMEOUT", 0.1)
    other = sqlite3.connect(store.default_database(workspace), isolation_level=None)
    other.execute(f"BEGIN {lock}")
    told = r"database is locked; another process is writing to it: wait .*`refashion publish`"
    assert re.search(told, refusal(workspace))
    if reads:
        with store.connect(workspace, reading=True):
            pass
    else:
        assert "database is locked" in refusal(workspace, reading=True)
    other.close()
    connect(workspace.root)


@pytest.fixture
def impatient() -> Iterator[None]:
    """Let MLflow wait for a locked database for 0.1 s, and not for 20."""

    def shorten(*arguments: Any) -> tuple[str, Any]:
        _, _, statement, parameters, *_ = arguments
        return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


def test_a_database_that_is_locked_meanwhile_is_called_locked(
    workspace: Workspace, capfd: pytest.CaptureFixture[str], impatient: None
) -> None:
    other = sqlite3.connect(store.default_database(workspace), isolation_level=None)
    told = "database is locked; another process is writing to it"
    with pytest.raises(UserError, match=told), store.connect(workspace) as connected:
        other.execute("BEGIN IMMEDIATE")
        connected.client.create_experiment("mine")
    assert capfd.readouterr() == ("", "")
    other.close()


CONNECT = """
import sys
from pathlib import Path
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.tracking import store
full, read_only = (Workspace(Path(folder)) for folder in sys.argv[1:])
for workspace, reading in ((full, False), (read_only, False), (read_only, True)):
    try:
        with store.connect(workspace, reading=reading):
            print("connected")
    except UserError as error:
        print(error)
"""


def test_a_full_disk_and_a_read_only_one_are_told(workspace: Workspace) -> None:
    """Of the latter a database can be read."""
    root, disk = workspace.root, workspace.root.parent / "disk"
    disk.mkdir()
    script = (
        f"mount -t tmpfs -o size=200k tmpfs {disk}\n"
        f"mount --bind {root} {root}\nmount -o remount,ro,bind {root}\n"
        f"{sys.executable} -c '{CONNECT}' {disk} {root}\nls {disk}"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("no namespaces of one's own here")
    done = subprocess.run([*command, "sh", "-ec", script], capture_output=True, text=True)
    full, read_only, read, left = (done.stdout + done.stderr).splitlines()
    assert "database or disk is full; make room on its disk; no result is lost" in full
    assert left == "mlflow.db.lock"
    assert "readonly database; allow writing to it and to its folder; no result is l" in read_only
    assert read == "connected"
