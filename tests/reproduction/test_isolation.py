"""A hostile stage, with and without isolation: what it can reach, and what it leaves."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from campaign import processes, until
from refashion.base.errors import UserError
from refashion.reproduction import isolation, pipeline, worktree
from refashion.reproduction.worktree import PREFIX, State

HOSTILE = """
import ctypes, glob, json, os, pathlib, socket, subprocess, sys

def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(5)
        s.connect(address)
        return s.recv(5) == b"hello"

def write(path):
    path.chmod(0o700) if path.exists() else None
    return path.joinpath("mark").write_text("x") if path.is_dir() else path.write_text("x")

def content(path):
    try:
        return pathlib.Path(path).read_bytes()
    except OSError:  # it has ended
        return b""

outside, port = pathlib.Path({outside!r}), {port}
mount = ctypes.CDLL(None).mount
ATTEMPTS = {{
    "tcp": lambda: connect(socket.AF_INET, ("127.0.0.1", port)),
    "unix socket": lambda: connect(socket.AF_UNIX, str(outside / "socket")),
    "abstract socket": lambda: connect(socket.AF_UNIX, chr(0) + {name!r}),
    "write beside": lambda: write(outside),
    "write in home": lambda: write(pathlib.Path({home!r})),
    "write in the users checkout": lambda: write(outside.parent / "project"),
    "write in the users cache": lambda: [write(pathlib.Path(p)) for p in {cache!r}][0],
    "write to python": lambda: (write(pathlib.Path(sys.prefix)), os.remove(sys.prefix + "/mark")),
    "see home": lambda: (pathlib.Path({home!r}) / "secret").read_text(),
    "environment": lambda: os.environ["PASSWORD"],
    "others environment": lambda: b"PASSWORD=" + b"hunter" in b"".join(
        map(content, glob.glob("/proc/[0-9]*/environ"))
    ),
    "the users settings of dvc": lambda: b"hunter2" in content(".dvc/config.local"),
    "git": lambda: subprocess.check_output(["git", "log", "-1"], stderr=subprocess.DEVNULL),
}}

def succeeds(attempt):
    try:
        return bool(attempt())
    except Exception:
        return False

pathlib.Path("logs").mkdir(exist_ok=True)
pathlib.Path("logs/attempts.json").write_text(json.dumps(
    {{name: succeeds(attempt) for name, attempt in ATTEMPTS.items()}}
))
"""


@pytest.fixture
def hostile(repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a repository whose stage tries what it must not, and things for it to reach."""
    home, outside = tmp_path / "home", tmp_path / "outside"
    for folder in (home, outside):
        folder.mkdir()
    (home / "secret").write_text("hunter2")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PASSWORD", "hunter2")
    monkeypatch.chdir(tmp_path)
    name = tmp_path.as_posix()
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))]
        for address in ("outside/socket", f"\0{name}"):  # a path has 107 characters at most
            listeners.append(stack.enter_context(socket.socket(socket.AF_UNIX)))
            listeners[-1].bind(address)
            listeners[-1].listen()
        for listener in listeners:
            threading.Thread(target=greet, args=(listener,), daemon=True).start()
        cache = repository.workspace.root / ".dvc" / "cache"
        values = {
            **{"outside": str(outside), "home": str(home), "name": name},
            **{"port": listeners[0].getsockname()[1]},
            "cache": [str(file) for file in cache.rglob("*") if file.is_file()][:1],
        }
        code = repository.workspace.root / "stages" / "make.py"
        code.write_text(HOSTILE.format(**values) + code.read_text())
        repository.commit("Be hostile")
        local = repository.workspace.root / ".dvc" / "config.local"
        local.write_text("['remote \"team\"']\n    url = ssh://team/data\n    password = hunter2\n")
        yield repository
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)


def greet(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"hello")


@pytest.mark.parametrize("isolated", [False, True])
def test_what_a_stage_can_reach(hostile: Any, isolated: bool) -> None:
    """Without isolation everything: so the attempts are real ones."""
    state = State(commit=hostile.git("rev-parse", "HEAD"))
    with worktree.checkout(state, hostile.workspace) as checkout:
        pipeline.rerun(checkout, ["evaluate@mlp"], hostile.workspace, isolated=isolated)
        attempts = json.loads((checkout.root / "logs" / "attempts.json").read_text())
        assert (checkout.root / "models" / "mlp" / "record.json").is_file()
    assert [name for name, succeeded in attempts.items() if succeeded is isolated] == []


@pytest.mark.ci
def test_the_verdict_of_an_isolated_run(hostile: Any, tmp_path: Path) -> None:
    run = hostile.published("mlp")
    before = sorted(path for path in tmp_path.rglob("*") if ".git" not in path.parts)
    done = hostile.refashion("reproduce", "HEAD", "--isolated", "--name", "mlp")
    assert (done.exit_code, done.stdout.endswith("): identical\n")) == (0, True), done.output
    assert sorted(path for path in tmp_path.rglob("*") if ".git" not in path.parts) == before
    assert "reproduced" not in hostile.client.get_run(run.info.run_id).data.tags


def hacked(repository: Any, code: str) -> State:
    """The state of a commit whose stages run some code first."""
    file = repository.workspace.root / "stages" / "make.py"
    file.write_text(f"{code}\n{file.read_text()}")
    return State(commit=repository.commit("Be hacked"))


def test_data_that_only_a_network_has(repository: Any, tmp_path: Path) -> None:
    state = hacked(repository, "import os\nos.environ['OFFLINE'] = '1'")
    (repository.workspace.root / ".dvc" / "cache").rename(tmp_path / "cache")
    with (
        worktree.checkout(state, repository.workspace) as checkout,
        pytest.raises(UserError, match=r"^--isolated: DVC.s cache has not all data"),
    ):
        pipeline.rerun(checkout, ["evaluate@softmax"], repository.workspace, isolated=True)


@pytest.mark.parametrize("left", ["symlink('/etc/passwd', path)", "mkfifo(path)"])
def test_what_a_stage_leaves_is_not_followed(repository: Any, left: str) -> None:
    """Links out of the checkout, and pipes, which nobody would write to."""
    path = "logs/mlp.json"
    leave = f"import atexit, os\npath = {path!r}\nos.makedirs('logs', exist_ok=True)\n"
    leave += f"atexit.register(lambda: os.path.lexists(path) or os.{left})"
    with (
        worktree.checkout(hacked(repository, leave), repository.workspace) as checkout,
        pytest.raises(UserError, match=f"^{path}: is .*; remove it from the run$"),
    ):
        pipeline.rerun(checkout, ["evaluate@mlp"], repository.workspace, isolated=True)


RUN = """
import sys
from pathlib import Path
from refashion.base.workspace import Workspace
from refashion.reproduction import pipeline, worktree
workspace = Workspace(Path.cwd())
with worktree.checkout(worktree.State(commit=sys.argv[1]), workspace) as checkout:
    pipeline.rerun(checkout, ["evaluate@mlp"], workspace, isolated=True)
"""


def test_nothing_outlives_a_killed_run(repository: Any, temporary: Path) -> None:
    state, root = hacked(repository, "import time\ntime.sleep(600)"), repository.workspace.root
    command = [sys.executable, "-c", RUN, state.commit]
    process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE)
    assert process.stderr
    for line in process.stderr:
        if b"Running stage" in line:
            break
    (swept,) = (root / ".git" / "worktrees").iterdir()
    assert processes(temporary / swept.name)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    until(lambda: not processes(temporary / swept.name))
    removed = worktree.sweep(repository.workspace)
    assert {temporary / swept.name, swept} <= set(removed)
    assert repository.git("worktree", "list").count("\n") == 0


@pytest.mark.parametrize("refusal", ["", "unshare: unshare failed: Operation not permitted"])
def test_where_the_system_cannot_isolate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    if refusal:
        (programs / "setpriv").write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 1\n")
        (programs / "setpriv").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    folder = tmp_path / f"{PREFIX}checkout"
    folder.mkdir()
    with pytest.raises(UserError) as error:
        isolation.sandbox(folder)
    told = refusal or "there is no setpriv"
    assert str(error.value).startswith(f"--isolated: {told}; it needs Linux")
    assert "\n" not in str(error.value)
