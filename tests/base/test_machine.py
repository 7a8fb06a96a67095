"""Which processes are at work."""

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
