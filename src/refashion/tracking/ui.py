"""MLflow's pages on this machine, opened at the runs of the workspace."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from contextlib import suppress
from pathlib import Path

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data.catalogue import DATASETS
from refashion.tracking import view
from refashion.tracking.store import Store

HOST = "127.0.0.1"
"""The loopback interface: nobody else can look."""

LAST_PORT = 65535

PATIENCE = 60
"""Seconds that MLflow has to start."""


def experiment(workspace: Workspace, store: Store) -> str:
    """Id of the experiment to show: of the workspace's data set, of another one, or of a study.

    Raises
    ------
    UserError
        If nothing was published there.
    """
    ids = {e.name: e.experiment_id for e in store.experiments() if view.TAG in e.tags}
    for name in (workspace.params().data.dataset, *DATASETS, *ids):
        if name in ids:
            return ids[name]
    raise UserError(f"{store.uri}: there is no run to show; publish with `make repro`")


def show(store: Store, experiment_id: str, port: int, log: Path) -> None:
    """Print where the runs are shown, open it in a browser, and serve a database until Ctrl-C.

    What MLflow's server prints goes to the file `log`.

    Raises
    ------
    UserError
        If the port is in use, or MLflow does not start.
    """
    if store.uri.startswith("http"):
        _open(view.address(store.uri, experiment_id))
        return
    _check_free(port)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--uvicorn-opts", "--log-level warning"]
    # Workers for jobs that nothing here asks for would be six more processes.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["MLFLOW_BACKEND_STORE_URI"] = store.client.tracking_uri  # it may have a password
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):  # also if a shell ignores them
        signal.signal(signum, signal.default_int_handler)
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as output:  # in a session of its own, to end all its processes at once
        server = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    address, latest = f"http://{HOST}:{port}", time.monotonic() + PATIENCE
    try:
        while not _answers(f"{address}/health"):
            if server.poll() is not None or time.monotonic() > latest:
                raise UserError(f"{address}: MLflow does not answer; {log} tells why")
            time.sleep(0.1)
        _open(view.address(address, experiment_id))
        print("Ctrl-C stops it", flush=True)
        server.wait()
        raise UserError(f"{address}: MLflow has ended; {log} tells why")
    except KeyboardInterrupt:
        pass
    finally:
        with suppress(ProcessLookupError):  # whatever it writes is one transaction
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _open(address: str) -> None:
    """Print an address, and open it where there is a screen and somebody to look at it."""
    print(address, flush=True)
    screens = {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if (screens or sys.platform == "darwin") and "CI" not in os.environ:
        webbrowser.open(address)


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            other = port + 1 if port < LAST_PORT else port - 1
            raise UserError(
                f"port {port}: {error.strerror}; choose another, as in `make ui PORT={other}` "
                f"or `refashion ui --port {other}`"
            ) from None


def _answers(page: str) -> bool:
    with suppress(OSError):
        urllib.request.urlopen(page, timeout=5).close()
        return True
    return False
