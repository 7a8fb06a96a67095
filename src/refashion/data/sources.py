"""Where the files of a data set come from. It cannot matter: each must have its checksum."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.base.files import replacing, write_text
from refashion.data import idx
from refashion.data.catalogue import DATASETS, FILES, HOUSE_CHECKSUMS, HOUSE_MIRRORS

VARIABLE = "REFASHION_DATA"
"""Environment variable that names a folder with the files (relative: to the user's checkout)."""

PATIENCE = 10.0
"""Seconds in which a mirror must answer, and then send CHUNK bytes, again and again."""

CHUNK = 2**16
NOTE_EVERY = 10.0
"""Seconds between two lines about a download when there is no terminal to draw a bar on."""

NUM_DIGITS_TRAIN = 1500
ALGORITHMS = {32: "md5", 40: "sha1"}
"""Of a checksum, by its length."""

Tell = Callable[[int, int | None], None]
"""Takes the bytes that are here and, where known, how many there will be."""


class SourceError(Exception):
    """A source cannot give a file, or gives another one; the next source may do better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Official:
    """What is known of the official files of a data set."""

    checksums: dict[str, str]
    """Name of a file -> its MD5 or SHA-1 (hexadecimal)."""

    mirrors: Callable[[], Sequence[str]]
    """Gives folders (URLs) with all the files, when no folder of this machine has them."""


def fetch(dataset: str, folder: Path) -> None:
    """Put the four files of `dataset` into `folder`: all of them, checked, or none.

    Tried in order, each failure told in one line: the folder that REFASHION_DATA names,
    ``../shared/data/<dataset>`` beside the checkout, torchvision's mirrors and the authors' own
    folder. ``digits`` is made from scikit-learn's data and needs no source.

    Raises
    ------
    UserError
        No source has the files (`paths.NO_SOURCE` then holds the message too), or `folder`
        cannot be written.
    """
    paths.NO_SOURCE.unlink(missing_ok=True)
    if DATASETS[dataset].torchvision is None:
        made = digits()
        with _all_or_none(folder, made) as parts:
            for name, values in made.items():
                idx.write(parts[name], values)
    else:
        _collect(dataset, official(dataset), folder)


def fetch_houses(dataset: str, folder: Path) -> None:
    """Put both tables of house prices into `folder`, by the same rules as `fetch`.

    Parameters
    ----------
    dataset
        ``kaggle``, or ``made_up``, which needs no source.
    folder
        Where to put them.

    Raises
    ------
    UserError
        As for `fetch`.
    """
    paths.NO_SOURCE.unlink(missing_ok=True)
    if dataset == "made_up":
        from refashion.data import made_up  # imports torch: for this table alone

        tables = made_up.tables()
        with _all_or_none(folder, tables) as parts:
            for name, text in tables.items():
                parts[name].write_text(text, encoding="utf-8", newline="\n")
    else:
        pinned = Official(checksums=HOUSE_CHECKSUMS, mirrors=lambda: HOUSE_MIRRORS)
        _collect("house_prices", pinned, folder)


def official(dataset: str) -> Official:
    """Names, checksums and mirrors of the files of `dataset`."""
    known = DATASETS[dataset]
    names = (name for pair in FILES.values() for name in pair)

    def mirrors() -> Sequence[str]:
        from torchvision import datasets  # takes seconds: for a machine without the files alone

        return (*getattr(datasets, str(known.torchvision)).mirrors, *known.authors)

    return Official(checksums=dict(zip(names, known.checksums, strict=True)), mirrors=mirrors)


def folders(dataset: str) -> list[Path]:
    """Folders of this machine that may hold the files of `dataset`, in the order to try them."""
    name = dataset.replace("_", "-")
    found = []
    if value := os.environ.get(VARIABLE):
        named = paths.MAIN_ROOT / Path(value).expanduser()
        found.append(named / name if (named / name).is_dir() else named)
    for root in (paths.ROOT, paths.MAIN_ROOT):
        found.append(root.parent / "shared" / "data" / name)
    return list(dict.fromkeys(found))


def digits() -> dict[str, np.ndarray]:
    """Make MNIST's four files of scikit-learn's 8 x 8 digits.

    Every pixel becomes a block of 3 x 3 inside a margin of 2, its value 0 to 16 the nearest in
    0 to 255. The first 1,500 images are for training, the last 297 for the test.

    Returns
    -------
    dict
        Name of each file -> images (uint8 [n, 28, 28]) or labels (uint8 [n]).
    """
    from sklearn.datasets import load_digits  # 1 s: for this data set alone

    values, labels = load_digits(return_X_y=True)
    pixels = ((values.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8)
    images = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    chosen = {"train": slice(NUM_DIGITS_TRAIN), "test": slice(NUM_DIGITS_TRAIN, None)}
    made = {}
    for part, (images_name, labels_name) in FILES.items():
        made[images_name] = images[chosen[part]]
        made[labels_name] = labels[chosen[part]].astype(np.uint8)
    return made


@contextmanager
def _all_or_none(folder: Path, names: Iterable[str]) -> Iterator[dict[str, Path]]:
    """Lend a temporary name for each of the files; at the end they appear in `folder`."""
    try:
        with ExitStack() as stack:
            yield {name: stack.enter_context(replacing(folder / name)) for name in names}
    except OSError as error:
        raise UserError(
            f"{error.filename or folder}: cannot be written ({error.strerror}); "
            "free some space or mend the permissions"
        ) from error
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _collect(dataset: str, pinned: Official, folder: Path) -> None:
    """Put all files into `folder`; what one source has is kept when another gives the rest."""
    with _all_or_none(folder, pinned.checksums) as parts:
        _fill(dataset, pinned, parts)


def _fill(dataset: str, pinned: Official, parts: dict[str, Path]) -> None:
    missing = dict(pinned.checksums)
    tried = [] if os.environ.get(VARIABLE) else [f"{VARIABLE}: is not set"]

    def sources() -> Iterator[Path | str]:
        yield from folders(dataset)
        yield from pinned.mirrors()

    for source in sources():
        try:
            if isinstance(source, Path) and not source.is_dir():
                raise SourceError("there is no such folder")
            for name in list(missing):
                _take(source, name, missing[name], parts[name])
                del missing[name]
        except SourceError as problem:
            tried.append(f"{source}: {problem}")
            print(tried[-1], file=sys.stderr)
        else:
            print(f"{dataset}: official files from {source}, checksums right")
            return
    message = "\n".join(
        [
            f"{dataset}: no source has its files. Tried:",
            *(f"  {line}" for line in tried),
            f"Put {', '.join(parts)} in a folder and name it: {VARIABLE}=FOLDER dvc repro",
            "Or see the whole pipeline at work without a network, on small digits: make demo",
        ]
    )
    write_text(paths.NO_SOURCE, message + "\n")
    raise UserError(message)


def _take(source: Path | str, name: str, checksum: str, part: Path) -> None:
    """Copy or download one file of a source to `part` and hold it against its checksum."""
    algorithm = ALGORITHMS[len(checksum)]
    chunks = _read(source / name) if isinstance(source, Path) else _download(source + name, name)
    found = hashlib.new(algorithm, usedforsecurity=False)
    with closing(chunks), part.open("wb") as file:
        for chunk in chunks:
            found.update(chunk)
            file.write(chunk)
    if found.hexdigest() != checksum:
        flaw = _flaw(part.read_bytes(), name) if name.endswith(".gz") else ""
        raise SourceError(
            f"{name} has {algorithm.upper()} {found.hexdigest()}, not {checksum}{flaw}"
        )


def _flaw(content: bytes, name: str) -> str:
    """Tell, in brackets, how a file of the wrong checksum fails to be an IDX file, if it does."""
    try:
        (idx.parse_images if "images" in name else idx.parse_labels)(content, name)
    except UserError as error:
        return f" ({str(error).removeprefix(f'{name}: ').partition(';')[0]})"
    return ""


def _read(path: Path) -> Generator[bytes, None, None]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise SourceError(f"{path.name}: {error.strerror}") from error


def _download(url: str, name: str) -> Generator[bytes, None, None]:
    """Yield the content of `url` while a line or a bar shows how far it is.

    Another thread waits for the network: a name server that hangs and a host with many silent
    addresses are beyond the time-out of a socket, but not beyond that of a queue.
    """
    inbox: SimpleQueue[bytes | int | Exception | None] = SimpleQueue()
    abandoned = Event()

    def receive() -> None:
        try:
            request = Request(url, headers={"User-Agent": "refashion"})
            with urlopen(request, timeout=PATIENCE) as response:
                size = response.headers.get("Content-Length", "")
                inbox.put(int(size) if size.isdigit() else None)
                while (chunk := response.read(CHUNK)) and not abandoned.is_set():
                    inbox.put(chunk)
            inbox.put(b"")
        except Exception as error:  # for the thread that waits, to raise
            inbox.put(error)

    def next_item(silence: str) -> bytes | int | None:
        try:
            item = inbox.get(timeout=PATIENCE)
        except Empty:
            raise SourceError(f"{name}: {silence} in {PATIENCE:g} s") from None
        if isinstance(item, OSError | HTTPException):
            raise SourceError(f"{name}: {_reason(item)}") from item
        if isinstance(item, Exception):
            raise item
        return item

    Thread(target=receive, daemon=True).start()
    try:
        with _progress(url, name) as tell:
            total, done = next_item("no answer"), 0
            assert not isinstance(total, bytes)
            while chunk := next_item(f"less than {CHUNK} bytes"):
                assert isinstance(chunk, bytes)
                done += len(chunk)
                tell(done, total)
                yield chunk
            if total is not None and done != total:
                raise SourceError(f"{name}: the connection broke after {done} of {total} bytes")
    finally:
        abandoned.set()


def _reason(error: OSError | HTTPException) -> str:
    """Tell in one line what went wrong with a connection."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    cause = error.reason if isinstance(error, URLError) else error
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return " ".join(text.split())


@contextmanager
def _progress(url: str, name: str) -> Iterator[Tell]:
    """Draw a bar on a terminal; elsewhere print a line at the start and one now and then."""
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return

    print(f"downloading {url}", file=sys.stderr)
    noted = time.monotonic()

    def tell(done: int, total: int | None) -> None:
        nonlocal noted
        if time.monotonic() - noted >= NOTE_EVERY:
            noted = time.monotonic()
            of = "" if total is None else f" of {total / 1e6:.1f}"
            print(f"{name}: {done / 1e6:.1f}{of} MB", file=sys.stderr)

    yield tell
