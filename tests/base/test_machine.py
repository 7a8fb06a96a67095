"""Which processes are at work, and how one ends."""

import os
import subprocess
import sys
import time

import pytest

from refashion.base.machine import is_running

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@linux
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


@linux
def test_a_process_whose_name_is_cut_inside_a_character_is_at_work() -> None:
    name = "a" + "\u5b57" * 5
    code = f"open('/proc/self/comm', 'wb').write({name.encode()!r}); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline()
        assert is_running(process.pid)
        process.communicate(b"\n")


def test_a_number_that_no_process_can_have() -> None:
    assert not is_running(2**70)


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
