"""Sources of the files of a data set: folders and mirrors, each file held to its checksum."""

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
import urllib3
from requests.adapters import HTTPAdapter

from refashion.base.errors import UserError
from refashion.base.files import replacing, write_text
from refashion.base.progress import progress
from refashion.base.workspace import Workspace
from refashion.data import idx, synthetic
from refashion.data.catalogue import DATASETS, HOUSES, VARIABLE, Dataset

CONNECT, READ = 5.0, 10.0
"""Seconds in which a mirror must accept a connection, and between two things that it sends."""

SLOWEST = 6_500
"""Bytes a second that a mirror must send on average, after the first READ seconds."""

LARGEST = 2**26
"""Bytes of the largest file that is accepted; official ones are smaller."""

CHUNK = 2**16
MAKERS = {"digits": synthetic.digits, "synthetic": synthetic.houses}
ALGORITHMS = {32: "md5", 40: "sha1"}
"""Length of a checksum (hexadecimal) -> its algorithm."""


class SourceError(Exception):
    """A source cannot give a file, or gives another one; the next source may do better."""


def fetch(dataset: str, folder: Path, workspace: Workspace) -> None:
    """Put the files of a data set into `folder`, which is theirs alone: all, checked, or none.

    Tried in order, each failure told in one line: the folder that REFASHION_DATA names,
    ``../shared/data/<dataset>`` beside the checkout, torchvision's mirrors and the authors' own
    folder. Data sets that `refashion.data.synthetic` makes need no source.

    Raises
    ------
    UserError
        No source has the files; `workspace.no_source` then holds the message too.
    OSError
        `folder` cannot be written.
    """
    workspace.no_source.unlink(missing_ok=True)
    if dataset in MAKERS:
        contents = MAKERS[dataset]()
    else:
        contents = _collect({**DATASETS, **HOUSES}[dataset], workspace)
    try:
        with ExitStack() as stack:
            for name, content in contents.items():
                stack.enter_context(replacing(folder / name)).write_bytes(content)
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def folders(official: Dataset, workspace: Workspace) -> list[Path]:
    """Folders that may hold the files of a data set, in the order to try them."""
    name = official.title.replace("_", "-")
    candidates = []
    if value := os.environ.get(VARIABLE):
        named = workspace.main / Path(value).expanduser()
        candidates.append(named / name if (named / name).is_dir() else named)
    for root in (workspace.root, workspace.main):
        candidates.append(root.parent / "shared" / "data" / name)
    return list(dict.fromkeys(candidates))


def mirrors(official: Dataset) -> Iterator[str]:
    """Folders (URLs) that hold the files of a data set, in the order to try them."""
    if official.torchvision is not None:
        from torchvision import datasets  # takes seconds: for a machine without the files alone

        yield from getattr(datasets, official.torchvision).mirrors
    yield from official.mirrors


def _collect(official: Dataset, workspace: Workspace) -> dict[str, bytes]:
    """Contents of all files, from several sources where no single one has them all."""
    contents: dict[str, bytes] = {}
    tried = [] if os.environ.get(VARIABLE) else [f"{VARIABLE}: is not set"]
    sources: Iterator[Path | str] = chain(folders(official, workspace), mirrors(official))
    for source in sources:
        try:
            if isinstance(source, Path) and not source.is_dir():
                raise SourceError("there is no such folder")
            for name, checksum in official.checksums.items():
                if name not in contents:
                    contents[name] = _take(source, name, checksum)
        except SourceError as problem:
            tried.append(f"{source}: {problem}")
            print(tried[-1], file=sys.stderr)
        else:
            print(f"{official.title}: official files from {source}, checksums right")
            return contents
    lines = [
        f"{official.title}: no source has its files. Tried:",
        *(f"  {line}" for line in tried),
        f"Put {', '.join(official.checksums)} in a folder and name it: {VARIABLE}=FOLDER dvc repro",
        "Or see the whole pipeline at work without a network, on small digits: make demo",
    ]
    message = "\n".join(lines)
    write_text(workspace.no_source, message + "\n")
    raise UserError(message)


def _take(source: Path | str, name: str, checksum: str) -> bytes:
    """Read or download one file of a source and hold it against its checksum."""
    try:
        content = _copy(source / name) if isinstance(source, Path) else _download(source, name)
    except (SourceError, OSError, urllib3.exceptions.HTTPError) as error:
        raise SourceError(f"{name}: {_reason(error)}") from error
    algorithm = ALGORITHMS[len(checksum)]
    actual = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if actual != checksum:
        flaw = _flaw(name, content) if name.endswith(".gz") else ""
        raise SourceError(f"{name} has {algorithm.upper()} {actual}, not {checksum}{flaw}")
    return content


def _flaw(name: str, content: bytes) -> str:
    """Tell, in brackets, how a file of the wrong checksum fails to be an IDX file, if it does."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        try:
            (idx.read_images if "images" in name else idx.read_labels)(file)
        except UserError as error:
            return f" ({str(error).removeprefix(f'{file}: ').partition(';')[0]})"
    return ""


def _copy(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise SourceError("is no regular file")
    _require_plausible(path.stat().st_size)
    return path.read_bytes()


def _download(folder: str, name: str) -> bytes:
    # No encoding: a gzipped file must come as it is. No wait as long as a mirror asks for.
    retries = urllib3.Retry(
        connect=1,
        read=0,
        status=2,
        status_forcelist=(500, 502, 503, 504),
        raise_on_status=False,
        backoff_factor=0.5,
        respect_retry_after_header=False,
    )
    with requests.Session() as session:
        session.headers.update({"User-Agent": "refashion", "Accept-Encoding": "identity"})
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=retries))
        with session.get(folder + name, stream=True, timeout=(CONNECT, READ)) as response:
            if not response.ok:
                raise SourceError(f"HTTP {response.status_code} {response.reason}")
            size = response.headers.get("Content-Length", "")
            content, started = bytearray(), time.monotonic()
            with progress(name, int(size) if size.isdecimal() else None, "bytes") as advance:
                while chunk := response.raw.read1(CHUNK):
                    content += chunk
                    advance(len(chunk))
                    _require_plausible(len(content))
                    seconds = time.monotonic() - started
                    if seconds > READ and len(content) < SLOWEST * seconds:
                        raise SourceError(f"less than {SLOWEST} bytes a second")
            return bytes(content)


def _require_plausible(size: int) -> None:
    if size > LARGEST:
        raise SourceError(f"more than {LARGEST} bytes, as no official file has")


def _reason(error: BaseException) -> str:
    """First cause of an error of a connection, on one line."""
    for cause in (error.__cause__, error.__context__, *error.args):
        if isinstance(cause, BaseException):
            return _reason(cause)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.split())
