"""The MLflow server or database that results are published to."""

import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

READ_RETRY = "run the command again when that is mended"
RETRY = "no result is lost: when that is mended, `refashion publish` publishes them"
LOCK_TIMEOUT = 300
"""Seconds: another publisher holds the lock for a few of them."""

CONNECT_TIMEOUT = 5
"""Seconds that a server has to answer."""

# A dead server must be told in seconds; what the user has set stays.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(CONNECT_TIMEOUT),
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER": "0",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Store:
    """A connection to a tracking store that answered."""

    client: "MlflowClient"
    uri: str  # without a password
    artifacts: str | None  # where a new experiment keeps them; None: where the server says
    is_own: bool  # whether it is the database of the user's own checkout
    lock: AbstractContextManager[object]  # lets one publisher in at a time; does nothing on servers


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
        If the store is dead, silent, or refuses what it is asked within the block.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{default_database(workspace)}"
    url = urlsplit(uri)
    shown = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
    database, retry = None, READ_RETRY if reading else RETRY
    if url.scheme.startswith("sqlite"):
        kind, _, path = uri.partition(":///")
        path, mark, options = path.partition("?")
        database = workspace.main / path
        if reading and not database.exists():
            raise UserError(
                f"{database}: no such database; publish with `make repro`, or name another in "
                "MLFLOW_TRACKING_URI"
            )
        _check_database(database)
        uri = shown = f"{kind}:///{database}{mark}{options}"
    elif url.hostname:
        _check_alive(url, shown, retry)
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)

    import filelock
    import requests
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    beside = database or default_database(workspace)
    is_sql = "sql" in url.scheme  # SQLite, PostgreSQL, MySQL and SQL Server
    artifacts = beside.with_name("mlflow-artifacts").as_uri() if is_sql else None
    lock: AbstractContextManager[object] = nullcontext()
    if database:
        lock = filelock.FileLock(f"{database}.lock", timeout=LOCK_TIMEOUT)
    try:
        with lock:  # two clients must not create one database
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
        is_own = database == default_database(workspace)
        yield Store(client=client, uri=shown, artifacts=artifacts, is_own=is_own, lock=lock)
    except filelock.Timeout as error:
        raise UserError(
            f"{error.lock_file}: another publisher has held it for {LOCK_TIMEOUT} s; "
            "end that process, then run `dvc repro`"
        ) from error
    except (MlflowException, requests.RequestException, SQLAlchemyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"MLflow at {shown}: {reason}; {retry}") from error


def _check_database(file: Path) -> None:
    """Refuse what MLflow would try for 100 s."""
    if not file.parent.is_dir():
        raise UserError(f"{file}: its folder does not exist; make it or mend MLFLOW_TRACKING_URI")
    if file.exists():
        with file.open("rb") as opened:
            if opened.read(15) not in {b"", b"SQLite format 3"}:
                raise UserError(
                    f"{file}: not an SQLite database; move it away, and `dvc repro` makes a new one"
                )


def _check_alive(url: SplitResult, shown: str, retry: str) -> None:
    """Refuse a server that does not answer: before MLflow, which takes seconds to import."""
    timeout = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", CONNECT_TIMEOUT))
    try:
        if url.scheme in {"http", "https"}:
            urllib.request.urlopen(f"{shown.rstrip('/')}/health", timeout=timeout).close()
        elif url.hostname and url.port:
            socket.create_connection((url.hostname, url.port), timeout).close()
    except (urllib.error.HTTPError, HTTPException):
        return  # an answer: MLflow will tell what it thinks of it
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLError):
            return  # MLflow has settings of its own for certificates
        if isinstance(reason, TimeoutError):
            reason = f"no answer within {timeout:g} s"
        raise UserError(f"MLflow at {shown}: {reason}; {retry}") from error
