"""Commands that do not outlive the process that started them, killed or not.

`running` has this file run, in a session of its own: whatever interrupts this process is told there
once, so that DVC can put back what it has begun, and a terminal takes nothing that is typed there.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

INTERRUPTED = 130
"""Exit code of a command that was interrupted or killed."""

PATIENCE = 30
"""Seconds that a command may take to end whose starter was killed."""


@contextmanager
def running(
    command: Sequence[str], folder: Path, variables: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command that tells of its progress on standard error, and reads nothing.

    If it still runs at the end, it is interrupted with all that it has started, and waited for; a
    second interruption kills them.
    """
    words = [sys.executable, "-I", __file__, str(os.getpid()), *command]
    with subprocess.Popen(
        words,
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            try:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
                process.wait()
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def _attend(parent: int, *command: str) -> int:
    """Run a command to its end, or interrupt it when this process's parent has ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which nohup's and sh's `&` ignore
    process = subprocess.Popen(command)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while os.getppid() == parent:
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(1)
            return code if code >= 0 else INTERRUPTED
    os.killpg(0, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)
    os.killpg(0, signal.SIGKILL)
    return INTERRUPTED


if __name__ == "__main__":
    sys.exit(_attend(int(sys.argv[1]), *sys.argv[2:]))
