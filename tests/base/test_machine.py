"""Which processes are at work, and how one ends."""

import os
import subprocess
import sys
import time

import pytest

from refashion.base.machine import is_running


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_process_is_at_work_until_it_ends_though_nobody_asked_for_its_end() -> None:
    assert is_running(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(process.pid)
    process.kill()
    while is_running(process.pid):
        time.sleep(0.01)
    os.kill(process.pid, 0)  # it is still listed
    process.communicate()
    assert not is_running(process.pid)


ENDS = """
import atexit, gc
import {module}
from refashion.base import machine

atexit.register(lambda: print("left:", gc.get_freeze_count() > 0))
machine.collect_garbage_seldom()
"""


@pytest.mark.parametrize(("module", "is_left"), [("numpy", True), ("triton", False)])
def test_garbage_is_left_at_the_end_and_that_is_not_told(module: str, is_left: bool) -> None:
    pytest.importorskip(module)
    code = ENDS.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"left: {is_left}\n", "")
