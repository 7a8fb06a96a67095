"""Stages whose system calls fail, or at which they are killed: strace injects the fault.

A stage runs in a process that is forked with all modules imported, which takes no time, and waits
until strace is attached. What it does from then on is the same each time, so that the Nth call of
a name in one run is the Nth in the next.
"""

import ctypes
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLS = (
    "openat,write,pwrite64,writev,sendfile,copy_file_range,ftruncate,fsync,fdatasync,"
    "rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat"
)
"""System calls that change files."""

ANY_TRACER = ctypes.c_ulong(-1)
PR_SET_PTRACER = 0x59616D61

PROCESSES = multiprocessing.get_context("forkserver")
MODULES = (
    *("matplotlib.figure", "mlflow.store.tracking.sqlalchemy_store", "safetensors.torch"),
    *("dvc.cli", "dvc.commands.repro", "dvc.repo.reproduce", "sklearn.datasets", "torchvision"),
    *("dvc.dvcfile", "dvc.repo.index", "dvc.stage.cache", "networkx", "scmrepo.git"),
    *("refashion.pictures.of_run", "refashion.tracking.publish", "refashion.tracking.context"),
    *("refashion.data.sources", "refashion.data.splits", "refashion.evaluation.comparison"),
    *("refashion.evaluation.metrics", "refashion.studies.classifiers", "rich.console"),
    *("refashion.studies.weight_decay", "refashion.studies.house_prices", "filelock"),
    *("refashion.studies.initialisation", "refashion.studies.executors", "sklearn.utils"),
)
PROCESSES.set_forkserver_preload([*MODULES, __name__])

SECONDS = 120
"""After which a process counts as stuck."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A system call of a process, which it makes for the `number`-th time, from 1 on."""

    call: str
    number: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended."""

    code: int | None
    """Its exit code; negative, the signal that killed it; None, it was stuck."""

    text: str
    """What it printed."""

    @property
    def is_told(self) -> bool:
        """Whether it ended well, or gave one line for what was wrong, and the exit code 2."""
        errors = [line for line in self.text.splitlines() if line.startswith("error: ")]
        refused = self.code == 2 and len(errors) == 1
        return "Traceback" not in self.text and (self.code == 0 or refused)


def unavailable() -> str:
    """Why no fault can be injected here; empty if it can."""
    if not shutil.which("strace"):
        return "strace is not installed (Debian: apt install strace)"
    done = subprocess.run(
        ["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True
    )
    return f"strace may not trace processes here: {done.stderr.strip()}" * bool(done.returncode)


Program = Callable[..., None]
"""Runs in a checkout, which is its first argument."""


def _stage(root: Path, *arguments: str) -> None:
    sys.argv = ["stages", *arguments]
    sys.path.insert(0, str(root / "stages"))
    runpy.run_path(str(root / "stages" / "__main__.py"), run_name="__main__")


def dvc_itself(root: Path, *arguments: str) -> None:
    from dvc.cli import main

    sys.exit(main(arguments))


def _work(
    main: Program,
    root: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    output: Path,
    ready: Any,
) -> None:
    """Run a program's `main` in a checkout; if `ready`, tell so, and wait for a tracer."""
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.chdir(root)
    os.environ.update(environment)
    sys.dont_write_bytecode = True
    if ready:
        ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_TRACER, 0, 0, 0)
        status = os.open("/proc/self/status", os.O_RDONLY)
        ready.set()
        while b"TracerPid:\t0" in os.pread(status, 4096, 0):
            time.sleep(0.001)
        time.sleep(0.02)  # until it sees every call
    main(root, *arguments)


def _run(
    main: Program,
    root: Path,
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    tracer: list[str] | None = None,
) -> tuple[Outcome, int]:
    """Run a program in a process of its own, and give its outcome and its id."""
    output = root.parent / "output.txt"
    ready = PROCESSES.Event() if tracer else None
    process: Any = PROCESSES.Process(
        target=_work, args=(main, root, arguments, environment, output, ready)
    )
    process.start()
    watcher = None
    if tracer and ready and ready.wait(SECONDS):
        watcher = subprocess.Popen([*tracer, "-p", str(process.pid)])
    process.join(SECONDS)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    if watcher:
        watcher.wait(SECONDS)
    return Outcome(code, output.read_text(errors="replace")), process.pid


def stage(root: Path, *arguments: str, **environment: str) -> Outcome:
    """Run a stage, without a fault."""
    return _run(_stage, root, arguments, environment)[0]


def dvc(root: Path, *arguments: str, **environment: str) -> Outcome:
    """Run a command of DVC, without a fault."""
    return _run(dvc_itself, root, arguments, environment)[0]


def moments(
    root: Path, *arguments: str, program: Program = _stage, **environment: str
) -> list[Moment]:
    """All calls by which a program changes files of its checkout, in their order."""
    log = root.parent / "calls.txt"
    tracer = ["strace", "-f", "-qq", "-y", "-o", str(log), "-e", f"trace={CALLS}"]
    outcome, pid = _run(program, root, arguments, environment, tracer)
    assert outcome.code == 0, outcome.text
    numbers: Counter[str] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        # Another process's, or the second half of a call that was interrupted: not counted.
        if made := re.match(rf"{pid} +(\w+)\((.*)", line):
            call, about = made.groups()
            numbers[call] += 1
            reads = call == "openat" and not re.search("O_WRONLY|O_RDWR|O_CREAT", about)
            if str(root) in about and not reads:
                found.append(Moment(call, numbers[call]))
    return found


def inject(
    fault: str,
    moment: Moment,
    root: Path,
    *arguments: str,
    program: Program = _stage,
    **environment: str,
) -> Outcome:
    """Run a stage that at a moment is killed (``KILL``), or whose call fails (``ENOSPC``...).

    Or `dvc_itself`: the stages that it starts go on.
    """
    kind = "signal" if fault == "KILL" else "error"
    effect = f"inject={moment.call}:{kind}={fault}:when={moment.number}"
    followed = ["-f"] * (program is _stage)
    tracer = ["strace", *followed, "-qq", "-o", "/dev/null", "-e", f"trace={CALLS}", "-e", effect]
    return _run(program, root, arguments, environment, tracer)[0]
