"""Commands end with the process that started them, and have time to put things back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaign import until
from refashion.base.machine import is_running

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


@pytest.fixture(params=["", "trap '' INT; exec "], ids=["heard", "deaf"])
def starter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has started the command; shells make what they start with ``&`` deaf."""
    words = ["sh", "-c", f'{request.param} "$0" "$@"', sys.executable, "-c", STARTER]
    with subprocess.Popen(words, cwd=tmp_path, start_new_session=True) as process:
        try:
            until((tmp_path / "started").exists)
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_was_started_ends_when_its_starter_does(
    starter: subprocess.Popen[bytes], number: signal.Signals, tmp_path: Path
) -> None:
    """Though it was not told to itself; and not before it has put things back."""
    started = int((tmp_path / "started").read_text())
    os.killpg(starter.pid, number)
    until((tmp_path / "put_back").exists)
    starter.wait(60)
    until(lambda: not is_running(started))
