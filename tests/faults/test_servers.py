"""Tracking servers and databases that fail in the middle: nothing is lost, nothing is doubled."""

import http.client
import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

import injected
from campaign import Campaign
from publishing import address, models, publish_softmax, published, tell
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.tracking import integrity
from servers import free_port, postgres, serving
from synthetic import write_workspace

pytestmark = pytest.mark.faults

RUN = "softmax"
TIMEOUT = "2"
"""Seconds that a server has to answer."""


class Proxy(ThreadingHTTPServer):
    """Stands between a publisher and a server, and fails at the Nth request."""

    daemon_threads = True

    def __init__(self, server: str) -> None:
        super().__init__(("127.0.0.1", 0), Relay)
        self.server = server.removeprefix("http://")
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault, self.number, self.requests = "", 0, 0

    def arm(self, fault: str, number: int) -> None:
        """Fail at the request of a number, from now on."""
        self.fault, self.number, self.requests = fault, number, 0


class Relay(BaseHTTPRequestHandler):
    """Passes requests on."""

    server: Proxy
    protocol_version = "HTTP/1.1"

    def relay(self) -> None:
        """Pass a request on, or fail."""
        self.server.requests += 1
        reached = self.server.requests >= self.server.number > 0
        once = self.server.requests == self.server.number
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault
        if reached and fault in ("500", "503"):  # from then on
            self.send_response(int(fault))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if once and fault == "hangs":
            time.sleep(float(TIMEOUT) + 1)
        if once and fault in ("hangs", "cut before"):
            self.close_connection = True
            return
        connection = http.client.HTTPConnection(self.server.server, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        connection.request(self.command, self.path, body, headers)
        with closing(connection), connection.getresponse() as answer:
            content = answer.read()
        if once and fault == "cut after":  # the server has done it
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", ""))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if once and fault == "half" else content)
        self.close_connection = once and fault == "half"

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = relay

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with results, of which no pictures are drawn: these take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "draw", lambda run, workspace: {})
        patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT)
        yield write_workspace(tmp_path_factory.mktemp("servers"))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Proxy]:
    """Stand before a server with an empty database."""
    database = tmp_path_factory.mktemp("server") / "mlflow.db"
    shutil.copyfile(empty_database, database)
    with (
        serving(f"sqlite:///{database}", database.with_suffix(".artifacts")) as uri,
        Proxy(uri) as proxy,
    ):
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield proxy
        proxy.shutdown()


def try_to_publish(workspace: Workspace, uri: str) -> list[str]:
    """Publish; anything but success or one line is a wrong outcome."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        try:
            tell(workspace, RUN)
        except UserError as error:
            return ["untold"] * ("\n" in str(error))
        except Exception:
            return ["untold"]
    return []


def check(workspace: Workspace, uri: str) -> list[str]:
    """Publish again, where all is well: one complete run and one model remain."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        try:
            tell(workspace, RUN)
        except UserError:
            return ["stuck"]
    runs = published(uri)
    complete = [r for r in runs if r.data.tags[integrity.PUBLISHED] == integrity.COMPLETE]
    wrong = ["lost"] * (not complete) + ["doubled"] * (len(complete) > 1)
    wrong += ["stale"] * (len(runs) > len(complete) or len(models(uri)) != 1)
    for run in complete:
        names = {f.path for f in MlflowClient(uri).list_artifacts(run.info.run_id)}
        wrong += ["lost"] * (not names >= {"record.json", "weights.safetensors", "digests.json"})
        wrong += ["lost"] * (len(run.data.metrics) != 13)
    return wrong


def empty(uri: str) -> None:
    """Delete what was published."""
    client = MlflowClient(uri)
    for model in models(uri):
        client.delete_logged_model(model.model_id)
    for run in published(uri):
        client.delete_run(run.info.run_id)


@pytest.mark.parametrize("fault", ["500", "503", "hangs", "cut before", "cut after", "half"])
def test_fails_at_the_nth_request(
    fault: str, proxy: Proxy, workspace: Workspace, campaign: Campaign
) -> None:
    uri = f"http://{proxy.server}"
    proxy.arm("", 0)
    assert not try_to_publish(workspace, proxy.address) and not check(workspace, uri)
    requests = proxy.requests
    numbers = random.Random(fault).sample(range(1, requests + 1), min(requests, 8))
    with campaign.of(f"server: {fault} at the Nth request") as trials:
        for number in sorted(numbers):
            empty(uri)
            proxy.arm(fault, number)
            wrong = try_to_publish(workspace, proxy.address)
            trials.add(number, wrong + check(workspace, uri))


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_server_dies_or_sleeps(
    fault: str, workspace: Workspace, campaign: Campaign, tmp_path: Path, empty_database: Path
) -> None:
    """In mid-publish; then it is started again, or goes on."""
    database, port = tmp_path / "mlflow.db", free_port()
    server = f"sqlite:///{database}", tmp_path / "artifacts", port
    with campaign.of(f"server: {fault} while publishing") as trials:
        for moment in (0.1, 0.4, 1.0):
            shutil.copyfile(empty_database, database)
            with serving(*server) as uri:
                group = group_of(port)
                number = signal.SIGKILL if fault == "killed" else signal.SIGSTOP
                timer = threading.Timer(moment, os.killpg, (group, number))
                timer.start()
                wrong = try_to_publish(workspace, uri)
                timer.join()
                if fault == "stopped":
                    os.killpg(group, signal.SIGCONT)
                    trials.add(moment, wrong + check(workspace, uri))
            if fault == "killed":
                with serving(*server) as uri:
                    trials.add(moment, wrong + check(workspace, uri))


def group_of(port: int) -> int:
    """The group of the processes that were started to serve at a port."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        if f"--port\0{port}\0".encode() in entry.read_bytes():
            return os.getpgid(int(entry.parent.name))
    raise AssertionError(port)


def damage(file: Path, seed: int) -> None:
    """Write noise over a part of a database, or cut it off."""
    noise, content = random.Random(seed), bytearray(file.read_bytes())
    place = noise.randrange(len(content))
    if seed % 3 == 0:
        file.write_bytes(content[:place])
    else:
        content[place : place + 4096] = noise.randbytes(len(content[place : place + 4096]))
        file.write_bytes(content)


def locked(database: Path) -> sqlite3.Connection:
    """Hold the database, as a program does that hangs."""
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


@pytest.mark.parametrize("fault", ["damaged", "locked", "a folder"])
def test_database(
    fault: str, workspace: Workspace, campaign: Campaign, tmp_path: Path, empty_database: Path
) -> None:
    """It is told in one line; moved away, `refashion publish` builds another one."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with campaign.of(f"database: {fault}") as trials:
        for seed in range(12 if fault == "damaged" else 1):
            database = tmp_path / "mlflow.db"
            shutil.copyfile(empty_database, database)
            release: Callable[[], object] = database.unlink
            match fault:
                case "damaged":
                    damage(database, seed)
                case "locked":
                    release = locked(database).close
                case "a folder":
                    database.unlink()
                    database.mkdir()
                    release = database.rmdir
            wrong = try_to_publish(workspace, uri)
            release()
            shutil.rmtree(tmp_path / "mlflow-artifacts", ignore_errors=True)
            again = tmp_path / f"again-{seed}.db"
            shutil.copyfile(empty_database, again)
            trials.add(seed, wrong + check(workspace, f"sqlite:///{again}"))


@contextmanager
def fresh(kind: str, workspace: Workspace) -> Iterator[str]:
    """Give the address of a database without tables."""
    if kind == "SQLite":
        yield address(workspace)
    else:
        with postgres() as uri:
            yield uri


@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
def test_eight_publishers_of_a_fresh_database(
    kind: str, workspace: Workspace, campaign: Campaign, tmp_path: Path
) -> None:
    with campaign.of(f"{kind}: eight publishers make the database") as trials:
        for i in range(2):
            root = shutil.copytree(workspace.root, tmp_path / str(i))
            with fresh(kind, Workspace(root)) as uri:
                with ProcessPoolExecutor(8, injected.PROCESSES) as pool:
                    told = list(pool.map(publish_softmax, [root] * 8, [uri] * 8))
                wrong = ["doubled"] * (len({run_id for _, run_id in told}) > 1)
                trials.add(i, wrong + check(workspace, uri))
