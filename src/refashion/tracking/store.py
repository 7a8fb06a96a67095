"""The MLflow server or database that results are published to."""

import glob
import logging
import os
import re
import shutil
import socket
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

READ_RETRY = "run the command again when that is mended"
RETRY = "no result is lost: when that is mended, `refashion publish` publishes them"
LOCK_TIMEOUT = 300
"""Seconds: another publisher holds the lock for a few of them."""

CONNECT_TIMEOUT = 5
"""Seconds that a server has to answer, or a database to be free."""

MAKING = 30
"""Seconds that publishers on a new database have, all of whom make its tables: one succeeds."""

ACTIVE_MODEL = ("MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID")
"""Variables that name a model which MLflow takes all metrics for that name none."""

ANEW = "move it away, and `refashion publish` builds it anew from the results"
CURES = {
    "is locked": "another process is writing to it: wait for its end, or end it",
    "readonly": "allow writing to it and to its folder",
    "unable to open": "allow reading and writing of it and of its folder",
    "is full": "make room on its disk",
    **dict.fromkeys(["malformed", "not a database", "no such", "already exists"], ANEW),
}
"""What to do, by words of what SQLite complains of."""

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
"""MLflow's variable with the seconds that a server has to answer."""

LEVEL = "MLFLOW_LOGGING_LEVEL"
"""MLflow's variable with the least severe of the messages that it logs."""

# A dead server must be told in seconds; what the user has set stays.
ENVIRONMENT = {
    TIMEOUT: str(CONNECT_TIMEOUT),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    LEVEL: "WARNING",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A connection to a tracking store that answered."""

    client: "MlflowClient"
    uri: str  # to be shown: without a password
    artifacts: str | None  # where a new experiment keeps them; None: where the server says
    is_own: bool  # whether it is the database of the user's own checkout
    lock: AbstractContextManager[object]  # lets one publisher in at a time; does nothing on servers

    def experiments(self) -> "list[Experiment]":
        """All experiments that are not deleted."""
        return every_page(self.client.search_experiments)


def every_page(search: Callable[..., Any], *arguments: Any) -> list[Any]:
    """All that a search of MLflow's client finds, which gives 1,000 at once."""
    found = page = search(*arguments)
    while page.token:
        page = search(*arguments, page_token=page.token)
        found += page
    return found


def default_database(workspace: Workspace) -> Path:
    """The database in the user's own checkout."""
    return workspace.main / "mlflow.db"


@contextmanager
def connect(workspace: Workspace, *, reading: bool = False) -> Iterator[Store]:
    """Connect to ``MLFLOW_TRACKING_URI``, or else to the database of the user's own checkout.

    The relative path of an SQLite database starts at that checkout, also in the temporary folder
    of an experiment. A database that does not exist is made, but not for `reading`.

    Raises
    ------
    UserError
        If the address is not legal, or if the store is dead, silent, or refuses what it is asked
        within the block.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    url = _split(uri)
    shown = url._replace(netloc=_without_login(url), query="", fragment="").geturl()
    database, retry = None, READ_RETRY if reading else RETRY
    if url.scheme.startswith("sqlite"):
        path, mark, options = uri.partition(":///")[2].partition("?")
        database = workspace.main / path
        uri = shown = f"{_address(database, url.scheme)}{mark}{options}"
    elif url.hostname:
        _check_alive(url, shown, retry)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    _check_level()
    if not reading:
        os.environ["MLFLOW_ENABLE_ASYNC_LOGGING"] = "false"  # what is written is read back at once
        for name in ACTIVE_MODEL:
            os.environ.pop(name, None)

    import filelock
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow.store.db.utils").setLevel("CRITICAL")  # what it logs, it raises too
    is_sql = "sql" in url.scheme  # SQLite, PostgreSQL, MySQL and SQL Server
    artifacts = (database or default_database(workspace)).parent / "mlflow-artifacts"
    lock: AbstractContextManager[object] = nullcontext()
    try:
        if database:
            lock = filelock.FileLock(f"{database}.lock", timeout=LOCK_TIMEOUT)
            _check_database(database, reading)
        try:
            with nullcontext() if reading else lock:  # two clients must not create one database
                if database and not reading:
                    _create(database, artifacts)
                client = _client(uri, others_make_tables=is_sql and not database)
        except (ImportError, ValueError) as error:  # no driver; an option or variable of MLflow's
            raise _refusal(url, shown, error, retry) from error
        yield Store(
            client=client,
            uri=shown,
            artifacts=artifacts.as_uri() if is_sql else None,
            is_own=database == default_database(workspace),
            lock=lock,
        )
    except filelock.Timeout as error:
        raise UserError(
            f"{error.lock_file}: another publisher has held it for {LOCK_TIMEOUT} s; "
            "end that process, then run `dvc repro`"
        ) from error
    except (MlflowException, requests.RequestException, SQLAlchemyError, sqlite3.Error) as error:
        raise _refusal(url, shown, error, retry) from error
    except BrokenPipeError:
        raise  # whoever reads what is printed has gone
    except OSError as error:  # of the lock or of artifacts: no permission, a full disk
        raise UserError(f"{error.filename or shown}: {error.strerror}; {retry}") from error


def _split(uri: str) -> SplitResult:
    """Split an address. One that is not legal is not shown: its password may be anywhere in it."""
    try:
        url = urlsplit(uri)
        (url.hostname or "").encode("idna")  # as it is asked for
        is_legal = url.port != 0 and not (url.netloc and "@" in url.path + url.fragment)
    except ValueError:
        is_legal = False
    if not is_legal:
        raise UserError(
            "MLFLOW_TRACKING_URI: is no legal address; mend it, as in http://server:5000 "
            "(in a password, write @ as %40, / as %2F and # as %23)"
        )
    return url


def _without_login(url: SplitResult) -> str:
    """Host and port of an address."""
    return url.netloc.rpartition("@")[2]


def _address(file: Path, kind: str = "sqlite") -> str:
    """The address of an SQLite database; if it were escaped, MLflow would make a stray folder."""
    if "?" in str(file) or unquote(str(file)) != str(file):
        raise UserError(
            f"{file}: MLflow opens no database at a path with ? or with % before two hex digits; "
            "name one elsewhere in MLFLOW_TRACKING_URI, or move the checkout"
        )
    return f"{kind}:///{file}"


def _client(uri: str, others_make_tables: bool) -> "MlflowClient":
    """Connect a client, and wait while other publishers make the tables of a new database."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    until = time.monotonic() + (MAKING if others_make_tables else 0)
    while True:
        try:
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
            return client
        except (MlflowException, IntegrityError, ProgrammingError):  # there are some of the tables
            if time.monotonic() > until:
                raise
            time.sleep(1)


@contextmanager
def by_default(store: Store) -> Iterator[None]:
    """Make a store the default of MLflow's functions that take no client.

    Its registry uses one for a logged model: else it would look in the working directory.
    """
    name = "MLFLOW_TRACKING_URI"
    before = os.environ.get(name)
    os.environ[name] = store.client.tracking_uri
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _refusal(url: SplitResult, shown: str, error: Exception, retry: str) -> UserError:
    """What MLflow or its database complains of, without a password, and what to do about it."""
    without_advice = re.sub(r"\A\(raised as a result of .*\n", "", str(error).strip())
    reason = without_advice.partition("\n")[0]
    reason = reason.replace(url.netloc, _without_login(url)).replace(url.query, "")
    is_sqlite = isinstance(error, sqlite3.Error) or "(sqlite3." in reason
    cures = [cure for words, cure in CURES.items() if is_sqlite and words in reason][:1]
    if isinstance(error, ImportError):
        cures = ["install this driver of the database"]
    return UserError("; ".join([f"MLflow at {shown}: {reason}", *cures, *[retry][ANEW in cures :]]))


def _check_database(file: Path, reading: bool) -> None:
    """Refuse what MLflow would try for 100 s, and a database that is not MLflow's or not whole."""
    if not file.parent.is_dir():
        raise UserError(f"{file}: its folder does not exist; make it or mend MLFLOW_TRACKING_URI")
    if file.is_dir():
        raise UserError(
            f"{file}: is a folder; name a file in MLFLOW_TRACKING_URI, as in sqlite:///mlflow.db"
        )
    tables = _tables(file)
    if reading and not tables:
        raise UserError(
            f"{file}: no such database; publish with `make repro`, or name another in "
            "MLFLOW_TRACKING_URI"
        )
    if tables and "experiments" not in tables:  # which MLflow makes first
        raise UserError(f"{file}: is not MLflow's database; name another in MLFLOW_TRACKING_URI")
    if tables and not _ask(file, "SELECT 1 FROM experiments"):  # its default one comes last
        raise UserError(f"{file}: was interrupted when it was made; {ANEW}")
    if tables and not reading:
        _ask(file, "UPDATE experiments SET name = name")  # may it, and its folder, be written to?


def _tables(file: Path) -> set[str]:
    """Names of a database's tables; none, where there is no database, or an empty file."""
    if not file.exists():
        return set()
    return {name for (name,) in _ask(file, "SELECT name FROM sqlite_master WHERE type = 'table'")}


def _ask(file: Path, query: str) -> list[tuple[Any, ...]]:
    """The answer of an SQLite database."""
    uri = f"{file.absolute().as_uri()}?mode=rw"
    with closing(sqlite3.connect(uri, CONNECT_TIMEOUT, uri=True)) as connection:
        return connection.execute(query).fetchall()


def _create(database: Path, artifacts: Path) -> None:
    """Make a database, if there is none; in a folder aside, so that no kill leaves half of it."""
    database = database.resolve()  # where a link leads to
    aside = files.aside(database)
    for path in database.parent.glob(f".{glob.escape(database.name)}.*{files.TEMPORARY}"):
        if path == aside or files.is_left(path):  # of a killed one that had this one's number
            shutil.rmtree(path, ignore_errors=True)
    if _tables(database):
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    aside.mkdir()
    try:
        new = aside / database.name
        SqlAlchemyStore(_address(new), artifacts.as_uri()).engine.dispose()
        for journal in ("-journal", "-wal", "-shm"):  # of a former database, to be applied to it
            Path(f"{database}{journal}").unlink(missing_ok=True)
        new.replace(database)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_alive(url: SplitResult, shown: str, retry: str) -> None:
    """Refuse a server that does not answer: before MLflow, which takes seconds to import."""
    timeout = _timeout()
    try:
        if url.scheme in {"http", "https"}:
            urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=timeout).close()
        elif url.hostname and (port := _port(url)):
            socket.create_connection((url.hostname, port), timeout).close()
    except (urllib.error.HTTPError, HTTPException):
        return  # an answer: MLflow will tell what it thinks of it
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLError):
            return  # MLflow has settings of its own for certificates
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {timeout} s"
        raise UserError(f"MLflow at {shown}: {reason}; {retry}") from error


def _timeout() -> int:
    """Seconds that a server has to answer."""
    text = os.environ.get(TIMEOUT, str(CONNECT_TIMEOUT))
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise UserError(f"{TIMEOUT}={text}: is no whole number from 1 to 999999999; mend it")
    return int(text)


def _check_level() -> None:
    """Refuse a level of logging that is none: MLflow does, in many lines, when it is imported."""
    level, levels = os.environ[LEVEL], logging.getLevelNamesMapping()
    if level and level.upper() not in levels:
        raise UserError(f"{LEVEL}={level}: is no level; mend it, as in {LEVEL}=WARNING")


def _port(url: SplitResult) -> int | str | None:
    """The port of a database's server; None if its driver may take another way than TCP."""
    if url.port or any(word in url.query for word in ("host", "port", "service", "socket")):
        return url.port
    match url.scheme.partition("+"):
        case "postgresql", _, _:
            return os.environ.get("PGPORT") or 5432
        case "mysql", _, _ if url.hostname != "localhost":  # which may mean a socket
            return 3306
        case "mssql", _, "pymssql":  # others may take a host for the name of a group of settings
            return 1433
    return None
