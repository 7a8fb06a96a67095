"""Files, read with one clear error, and written whole or not at all."""

import csv
import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from refashion.base.errors import UserError
from refashion.base.machine import HOST, is_running

TEMPORARY = ".tmp"
"""Ends the name of a temporary file, after those of its machine and its process."""

OF_DVC = re.compile(rf"\.[\w-]{{22}}\{TEMPORARY}")
"""The name of a temporary file of DVC's, which does not tell its process."""

SOON = 1.0
"""Seconds in which DVC has done with one: tried links there, or renamed it."""

SEAL = 65
"""Bytes of a first line that seals the rest of a file: a SHA-256 (hexadecimal)."""


def read_bytes(path: Path, cure: str) -> bytes:
    """Read a file; if it cannot be read, raise `UserError` that ends in `cure`, what to do."""
    try:
        refuse_special(path)
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {cure}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {cure}") from None


def read_json(path: Path, cure: str) -> dict[str, Any]:
    """Read a mapping in JSON; `UserError` as of `read_bytes`, for other content too."""
    try:
        content = json.loads(read_bytes(path, cure))
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); {cure}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is damaged (no mapping); {cure}")
    return content


def refuse_special(path: Path) -> None:
    """Raise `OSError` for a pipe or a device, which could be read for ever."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "is no regular file", str(path))


def aside(path: Path) -> Path:
    """A temporary name beside ``path``, which tells the machine and the process."""
    return path.with_name(f".{path.name}.{HOST}.{os.getpid()}{TEMPORARY}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a temporary name beside ``path``; what is written there becomes ``path`` at the end.

    If the block raises (Ctrl-C too), the temporary file goes and an existing ``path`` stays as
    it was. Missing folders are made. File and folder are on the disk before this returns: what
    was written survives a loss of power.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def left(*folders: Path) -> Iterator[Path]:
    """Temporary files in folders, of processes that were killed: of this machine, and DVC's."""
    for folder in folders:
        yield from filter(is_left, folder.rglob(f".*{TEMPORARY}"))


def is_left(file: Path) -> bool:
    """Whether the process is gone that gave a temporary file its name."""
    if not OF_DVC.fullmatch(file.name):
        pid = file.name.split(".")[-2]
        return f".{HOST}." in file.name and pid.isdecimal() and not is_running(int(pid))
    with suppress(FileNotFoundError):
        return time.time() - file.lstat().st_ctime > SOON
    return False


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_sealed(path: Path, key: str, content: bytes) -> None:
    """Write bytes with the SHA-256 of a key and of them, for `read_sealed`."""
    with replacing(path) as temporary:
        temporary.write_bytes(_seal(key, content) + content)


def read_sealed(path: Path, key: str) -> bytes | None:
    """The bytes that were written with this key; None if they are damaged, or another key's."""
    content = path.read_bytes()
    seal = _seal(key, content[SEAL:])
    return content[SEAL:] if content.startswith(seal) else None


def _seal(key: str, content: bytes) -> bytes:
    return hashlib.sha256(f"{key}\n".encode() + content).hexdigest().encode() + b"\n"


def is_inside(path: str) -> bool:
    """Whether a path, as text may have it that nobody vouches for, stays in the folder it is of."""
    place = PurePosixPath(path)
    return not (place.is_absolute() or ".." in place.parts)


def sha256(path: Path) -> str:
    """SHA-256 (hexadecimal) of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a folder, by their paths in it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in paths}


def altered(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """Files of a folder that are missing, or do not have their SHA-256."""
    return [
        name
        for name, digest in digests.items()
        if not (folder / name).is_file() or sha256(folder / name) != digest
    ]


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text, with ``\n`` line ends on every system."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, obj: Any, *, sort_keys: bool = True) -> None:
    """Write JSON with sorted keys and an indent of two; NaN and infinities are refused."""
    text = json.dumps(obj, indent=2, sort_keys=sort_keys, allow_nan=False)
    write_text(path, text + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a header and rows; floats in the shortest form that reads back as the same number.

    `ValueError` for a carriage return in a text: some versions of Python quote it, others do not.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        for row in chain([header], rows):
            for cell in row:
                if isinstance(cell, str) and "\r" in cell:
                    raise ValueError(f"{path}: {cell!r} holds a carriage return; remove it")
            writer.writerow(row)
