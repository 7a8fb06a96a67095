"""Commands end with the process that started them, and have time to put things back."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from refashion.base.machine import is_running
from refashion.reproduction import attended

COMMAND = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, file=open("started.tmp", "w"), flush=True)
os.rename("started.tmp", "started")
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(1)  # DVC saves what was there before
    open("put_back", "w").close()
    raise
"""
STARTER = f"""
import os, signal, sys
from pathlib import Path
from refashion.reproduction import attended
signal.signal(signal.SIGTERM, signal.default_int_handler)
command = [sys.executable, "-c", {COMMAND!r}]
with attended.running(command, Path.cwd(), dict(os.environ)) as process:
    process.wait()
"""


def wait_for(path: Path) -> None:
    patience = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < patience
        time.sleep(0.05)


@pytest.fixture(params=["", "trap '' INT; exec "], ids=["heard", "deaf"])
def starter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started the command; shells make what they start with ``&`` deaf."""
    words = ["sh", "-c", f'{request.param} "$0" "$@"', sys.executable, "-c", STARTER]
    with subprocess.Popen(words, cwd=tmp_path, start_new_session=True) as process:
        wait_for(tmp_path / "started")
        yield process


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_started_ends_when_its_starter_does(
    starter: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    """Though it was not told to itself; and not before it has put things back."""
    started = int((tmp_path / "started").read_text())
    os.killpg(starter.pid, number)
    wait_for(tmp_path / "put_back")
    starter.wait(60)
    patience = time.monotonic() + 60
    while is_running(started):
        assert time.monotonic() < patience
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(3)", 3), ("pass", 0), ("os.kill(os.getpid(), 15)", attended.INTERRUPTED)],
)
def test_the_exit_code_is_the_command_s(end: str, code: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", f"import os, sys; {end}"]
    with attended.running(command, tmp_path, {}) as process:
        assert process.wait() == code
