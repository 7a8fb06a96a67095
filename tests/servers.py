"""Processes that tests start: publishers of results, and servers."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from refashion.base.workspace import Workspace


def environment(**variables: str) -> dict[str, str]:
    """Environment of a process that runs this checkout's code, and tells nobody about it."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    fixed = {"PYTHONPATH": str(Workspace.here().root / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**own, **fixed, **variables}


def free_port() -> int:
    """Find a port of the loopback interface that nobody uses."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def listening(pid: int) -> set[str]:
    """IP:PORT of every TCP socket on which a process or what it has started listens (Linux)."""
    proc, inodes, pids = Path("/proc"), set(), [str(pid)]
    for one in pids:  # which grows
        pids += [c for f in proc.glob(f"{one}/task/*/children") for c in f.read_text().split()]
        inodes |= {file.stat().st_ino for file in proc.glob(f"{one}/fd/*") if file.exists()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in (proc / "net" / table).read_text().splitlines()[1:]:
            cells = line.split()
            ip, port = cells[1].split(":")
            if cells[3] == "0A" and int(cells[9]) in inodes:
                ip = ".".join(str(byte) for byte in bytes.fromhex(ip)[::-1])
                found.add(f"{ip}:{int(port, 16)}")
    return found


@contextmanager
def running(command: list[str], health: str, log: Path, **options: Any) -> Iterator[None]:
    """Run a server, from when its page `health` answers on."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(health, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def serving(database: str, artifacts: Path, port: int | None = None) -> Iterator[str]:
    """Run an MLflow server over a database and a folder of artifacts, and give its address."""
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]
    log = artifacts.with_suffix(".log")
    # Eight processes for jobs that nobody starts here take most of the time.
    without_jobs = environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")
    with running(command, f"{address}/health", log, env=without_jobs):
        yield address


@contextmanager
def postgres() -> Iterator[str]:
    """Run PostgreSQL, where Debian's is installed, and give the address of an empty database."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        become = []
        if os.geteuid() == 0:  # which it refuses to run as
            shutil.chown(folder, "postgres")
            become = ["runuser", "-u", "postgres", "--"]
        data, port = f"{folder}/data", free_port()

        def run(program: str, *arguments: str) -> None:
            command = [*become, str(binaries[-1] / program), "-D", data, *arguments]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "--auth=trust", "--username=tester", "--no-sync")
        options = f"-F -p {port} -k {folder} -h 127.0.0.1"
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield f"postgresql://tester@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
