"""Commands without a network, which see little of the system and write in one folder alone.

They see no home folder, no other process, and of the environment a few variables. It takes Linux
and the programs of util-linux: `sandbox` has this file run by ``unshare`` in namespaces of its own.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

READABLE = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/sys/devices/system"),
    *("/etc/alternatives", "/etc/group", "/etc/ld.so.cache", "/etc/localtime", "/etc/passwd"),
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
)
"""What is seen of a system, besides Python's own folders."""

VARIABLES = ("LANG", "LC_ALL", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "PYTHONPATH", "TZ")
"""Environment variables that are passed on: none that holds a secret."""

UNSHARE = (
    *("setpriv", "--pdeathsig", "KILL", "unshare", "--fork", "--kill-child", "--user"),
    *("--map-root-user", "--mount", "--net", "--pid", "--ipc", "--uts"),
)

READ_ONLY, BIND, RECURSIVE = 1, 4096, 16384  # of mount()
MOUNT_SETATTR, HERE, AT_RECURSIVE = 442, -100, 0x8000  # of syscall()
DROP_CAPABILITY, NO_NEW_PRIVILEGES = 24, 38  # of prctl()


def environment() -> dict[str, str]:
    """Environment of an isolated command."""
    kept = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    programs = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return {**kept, "PATH": programs, "HOME": "/tmp", "DVC_NO_ANALYTICS": "true"}


def sandbox(folder: Path) -> list[str]:
    """The words that isolate the command after them, which runs in `folder` and may write there.

    What it writes to ``/tmp`` and ``/dev/shm`` is gone at its end. It ends when whoever starts it
    does, together with all that it has started. `UserError` if the system cannot do that.
    """
    from refashion.base.errors import UserError

    python = (sys.prefix, sys.base_prefix, Path(sys.executable).resolve().parents[1])
    seen = {*READABLE, *map(str, python), *os.environ.get("PYTHONPATH", "").split(":")}
    present = [p for p in sorted(seen) if Path(p).is_absolute() and Path(p).exists()]
    root = folder.with_name("root")
    root.mkdir(exist_ok=True)
    words = [*UNSHARE, sys.executable, "-I", __file__, str(root), str(folder), *present, "--"]
    try:
        done = subprocess.run([*words, "true"], env=environment(), capture_output=True, text=True)
        reason = done.stderr.strip().rpartition("\n")[2]
    except FileNotFoundError as error:
        done, reason = None, f"there is no {error.filename}"
    if done is None or done.returncode:
        raise UserError(
            f"--isolated: {reason}; it needs Linux 5.12, util-linux 2.32 and a system that lets "
            "users make namespaces (Ubuntu: `sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            "`); or reproduce without it, on a machine that holds nothing else"
        )
    return words


def _run(root: Path, folder: str, *others: str) -> None:
    """Make a root of what may be seen, which is read-only but for one folder; run a command there.

    `others` are what else may be seen and, after ``--``, the command.
    """
    end = others.index("--")
    for name, kind, flags in (
        *(("", "tmpfs", 0), ("tmp", "tmpfs", 0), ("dev/shm", "tmpfs", 0)),
        ("proc", "proc", READ_ONLY),
    ):
        (root / name).mkdir(parents=True, exist_ok=True)
        _call("mount", kind.encode(), bytes(root / name), kind.encode(), flags, None)
    read_only = (ctypes.c_uint64 * 4)(READ_ONLY)
    for path in map(Path, (*others[:end], folder)):
        target = root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(exist_ok=True) if path.is_dir() else target.touch()
        _call("mount", bytes(path), bytes(target), None, BIND | RECURSIVE, None)
        if path != Path(folder):
            _call("syscall", MOUNT_SETATTR, HERE, bytes(target), AT_RECURSIVE, read_only, 32)
    _call("syscall", MOUNT_SETATTR, HERE, bytes(root), 0, read_only, 32)
    os.chroot(root)
    os.chdir(folder)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        _call("prctl", DROP_CAPABILITY, capability, 0, 0, 0)  # or it could mount all anew
    _call("prctl", NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.execvp(others[end + 1], others[end + 1 :])


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library; `OSError`, if it fails."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    _run(Path(sys.argv[1]), *sys.argv[2:])
