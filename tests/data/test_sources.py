"""How the files of a data set get here, from folders and mirrors, sound and broken ones."""

import dataclasses
import hashlib
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from official import pack, write_all
from refashion.base.errors import UserError, one_line
from refashion.base.workspace import Workspace
from refashion.data import catalogue, sources, splits, synthetic
from refashion.data.catalogue import FILES, HOUSE_FILES, Dataset

Files = dict[str, bytes]
Handler = BaseHTTPRequestHandler
Behaviour = Callable[[Handler, bytes], object]
TRAIN_IMAGES, TRAIN_LABELS = FILES["train"]
TEST_IMAGES, TEST_LABELS = FILES["test"]


def send(handler: Handler, content: bytes, status: int = 200, **headers: object) -> None:
    handler.send_response(status)
    for name, value in ({"Content_Length": len(content)} | headers).items():
        if value is not None:
            handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()
    handler.wfile.write(content)


def drip(handler: Handler, content: bytes) -> None:
    send(handler, b"", Content_Length=len(content))
    for byte in content:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.1)


SOUND: dict[str, Behaviour] = {
    "plain": send,
    "no length": partial(send, Content_Length=None),
    "gzip as an encoding": partial(send, Content_Encoding="gzip"),
}
BROKEN: dict[str, Behaviour] = {
    "IncompleteRead(": lambda handler, content: send(handler, content[:9], Content_Length=99),
    "timed out": lambda handler, content: time.sleep(6),
    "less than 6500 bytes a second": drip,
    "220 mail.example.org": lambda handler, _: handler.wfile.write(b"220 mail.example.org\r\n"),
    "more than 100000 bytes, as no official file has": lambda handler, _: send(
        handler, bytes(2**20), Content_Length=None
    ),
}
"""What is told of a mirror, and what it does."""


class Mirror:
    """A web server on loopback, with what it does for some files in place of sending them."""

    def __init__(self, files: Files) -> None:
        self.behaviour: dict[str, Behaviour] = {}
        self.requests: list[str] = []
        mirror = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.requests.append(name)
                if name in files:
                    with suppress(ConnectionError):  # who asked has hung up
                        mirror.behaviour.get(name, send)(self, files[name])
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/data/"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Place:
    """An empty checkout that is the user's own, for which the tiny files are the official ones."""

    def __init__(self, root: Path, files: Files) -> None:
        self.workspace, self.files = Workspace(root), files
        self.raw = self.workspace.raw
        self.beside = root.parent / "shared" / "data" / "kmnist"
        self.mirrors: list[Mirror] = []
        self.pin()

    def pin(self, *urls: str) -> None:
        md5 = {name: hashlib.md5(content).hexdigest() for name, content in self.files.items()}
        catalogue.DATASETS["kmnist"] = Dataset(title="kmnist", checksums=md5, mirrors=urls)

    def start(self, files: Files | None = None) -> Mirror:
        """Start a mirror and pin it behind those there are."""
        self.mirrors.append(Mirror(self.files if files is None else files))
        self.pin(*(mirror.url for mirror in self.mirrors))
        return self.mirrors[-1]

    def fetch(self) -> None:
        """Fetch what must come, whole."""
        sources.fetch("kmnist", self.raw, self.workspace)
        assert files_of(self.raw) == self.files
        assert not self.workspace.no_source.exists()

    def fails(self, dataset: str = "kmnist") -> list[str]:
        """The lines of a fetch that fails and leaves nothing behind."""
        with pytest.raises(UserError) as caught:
            sources.fetch(dataset, self.raw, self.workspace)
        assert not self.raw.exists()
        assert self.workspace.no_source.read_text() == f"{caught.value}\n"
        return str(caught.value).splitlines()


@pytest.fixture
def place(
    tmp_path: Path, official_files: Files, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    monkeypatch.delenv(catalogue.VARIABLE, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(catalogue.DATASETS, "kmnist", catalogue.DATASETS["kmnist"])
    root = tmp_path / "home" / "checkout"
    root.mkdir(parents=True)
    place = Place(root, official_files)
    yield place
    for mirror in place.mirrors:
        mirror.stop()


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- folders ----------------------------------------------------------------------------------


def test_folder_of_folders(place: Place, monkeypatch) -> None:
    # A relative name is one from the user's checkout, wherever the stage runs.
    root = place.workspace.root
    write_all(root.parent / "sets" / "kmnist", place.files)
    monkeypatch.setenv(catalogue.VARIABLE, "../sets")
    monkeypatch.setenv("DVC_ROOT", str(root))
    place.workspace = Workspace(root / "tmp" / "exps")
    place.fetch()


@pytest.mark.parametrize("this", [True, False])
def test_folder_beside_either_checkout(this: bool, place: Place, monkeypatch) -> None:
    other = place.workspace.root.parent.parent / "elsewhere" / "checkout"
    monkeypatch.setenv("DVC_ROOT", str(other))
    write_all(place.beside if this else other.parent / "shared" / "data" / "kmnist", place.files)
    place.fetch()


def test_order_of_the_sources(place: Place, raw: Path, monkeypatch, capsys) -> None:
    mirror = place.start()
    write_all(place.beside, place.files)
    monkeypatch.setenv(catalogue.VARIABLE, str(raw))
    for number, source in enumerate((raw, place.beside, mirror.url)):
        place.fetch()
        told = capsys.readouterr()
        assert told.out == f"kmnist: official files from {source}, checksums right\n"
        assert len(told.err.splitlines()) == number  # a line for each source that failed
        if isinstance(source, Path):
            (source / TRAIN_LABELS).unlink()
    assert TRAIN_IMAGES not in mirror.requests  # a folder that lost its labels had given it


def test_wrong_content_is_refused_by_name(place: Place) -> None:
    labels = np.full(40, 3, dtype=np.uint8)
    good = place.files[TRAIN_LABELS]
    write_all(place.beside, place.files)
    cases = {
        good[:-9]: "not a sound gzip file (Compressed file ended before",
        pack(labels, count=41): "its header promises 41 items (41 bytes), but 40 bytes follow)",
        pack(labels): "",  # sound, but not the official one
    }
    for content, flaw in cases.items():
        (place.beside / TRAIN_LABELS).write_bytes(content)
        actual, official = (hashlib.md5(x).hexdigest() for x in (content, good))
        line = f"  {place.beside}: {TRAIN_LABELS} has MD5 {actual}, not {official}"
        (told,) = [told for told in place.fails() if told.startswith(line)]
        assert told.removeprefix(line).startswith(f" ({flaw}" if flaw else flaw)
        assert flaw or told == line


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda path: os.mkfifo(path), "is no regular file"),
        (lambda path: path.symlink_to(path.with_name("gone")), "No such file or directory"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**40), "more than 67108"),
    ],
)
def test_what_is_no_file_is_refused(
    spoil: Callable[[Path], None], problem: str, place: Place
) -> None:
    write_all(place.beside, {TRAIN_IMAGES: place.files[TRAIN_IMAGES]})
    spoil(place.beside / TRAIN_LABELS)
    assert place.fails()[2].startswith(f"  {place.beside}: {TRAIN_LABELS}: {problem}")


# --- mirrors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", SOUND)
@pytest.mark.parametrize("terminal", [False, True])
def test_mirror(behaviour: str, terminal: bool, place: Place, monkeypatch, capsys) -> None:
    place.start().behaviour[TEST_IMAGES] = SOUND[behaviour]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    place.fetch()
    assert (TRAIN_IMAGES in capsys.readouterr().err) == terminal


@pytest.mark.parametrize("problem", BROKEN)
def test_a_mirror_that_fails_gives_way_to_the_next(
    problem: str, place: Place, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sources, "READ", 0.8)
    monkeypatch.setattr(sources, "LARGEST", 100_000)
    bad, good = place.start(), place.start()
    bad.behaviour[TRAIN_LABELS] = BROKEN[problem]
    started = time.monotonic()
    place.fetch()
    assert time.monotonic() - started < 5
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "127.0.0.1" in line]
    assert told.startswith(f"{bad.url}: {TRAIN_LABELS}: {problem}")
    assert TRAIN_IMAGES not in good.requests


def test_a_mirror_that_is_busy_for_a_moment_is_asked_again(place: Place) -> None:
    mirror = place.start()
    answers = iter([503, 503])

    def busy(handler: Handler, content: bytes) -> None:
        if status := next(answers, None):
            send(handler, b"", status, Retry_After=3600)
        else:
            send(handler, content)

    mirror.behaviour[TRAIN_IMAGES] = busy
    place.fetch()
    assert mirror.requests[:3] == [TRAIN_IMAGES] * 3


def test_no_source_in_reach(place: Place, capsys) -> None:
    empty, closed = place.start({}), place.start({})
    closed.stop()
    portal = place.start({TRAIN_IMAGES: b"<html>Please accept our terms to go on</html>"})
    nowhere = "http://no-such-host.invalid/"
    place.pin(empty.url, closed.url, portal.url, nowhere)
    lines = place.fails()
    assert lines[:5] == [
        "kmnist: no source has its files. Tried:",
        "  REFASHION_DATA: is not set",
        f"  {place.beside}: there is no such folder",
        f"  {empty.url}: {TRAIN_IMAGES}: HTTP 404 Not Found",
        f"  {closed.url}: {TRAIN_IMAGES}: Connection refused",
    ]
    assert lines[5].startswith(f"  {portal.url}: {TRAIN_IMAGES} has MD5 ")
    assert "(not a sound gzip file" in lines[5]
    assert lines[6].startswith(f"  {nowhere}: {TRAIN_IMAGES}: ")
    assert "REFASHION_DATA=FOLDER dvc repro" in lines[7]
    assert all(name in lines[7] for name in place.files)
    assert lines[8].endswith("make demo") and len(lines) == 9
    assert capsys.readouterr().err.splitlines() == [line.strip() for line in lines[2:7]]


# --- all or none ------------------------------------------------------------------------------


def test_failure_keeps_what_was_there_and_success_its_message(place: Place) -> None:
    place.fails()
    write_all(place.raw, dict.fromkeys(place.files, b"old"))
    with pytest.raises(UserError):
        sources.fetch("kmnist", place.raw, place.workspace)
    assert {*files_of(place.raw).values()} == {b"old"}
    write_all(place.beside, place.files)
    place.fetch()


def test_ctrl_c_leaves_nothing(place: Place) -> None:
    def interrupt(handler: Handler, content: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # to the main thread, as the terminal does
        time.sleep(1)

    place.start().behaviour[TEST_LABELS] = interrupt
    with pytest.raises(KeyboardInterrupt):
        place.fetch()
    assert not place.raw.exists() and not place.workspace.no_source.exists()


def test_folder_that_cannot_be_written(place: Place) -> None:
    write_all(place.beside, place.files)
    place.raw.parent.write_text("a file where a folder should be")
    with pytest.raises(OSError) as refused:
        place.fetch()
    line = one_line(refused.value)
    assert line.startswith(f"{place.raw.parent}") and "; move away what is in the way" in line


def test_a_full_disk_is_no_fault_of_the_source(place: Place) -> None:
    write_all(place.beside, place.files)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as refused:
            place.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert one_line(refused.value).startswith(f"{place.raw}/")
    assert not place.raw.exists() and not place.workspace.no_source.exists()


# --- the data sets ----------------------------------------------------------------------------


SYNTHETIC = {
    "digits": "260be9ef02f8ace073fc9402447d9fb4830d864e21c5a2cee11ec45a06233139",
    "synthetic": "3b6787775b4ffb536094973dc290d9a07bd7dd54bd9926deef12147b7d44429a",
}


@pytest.mark.parametrize(("dataset", "digest"), SYNTHETIC.items())
def test_what_needs_no_source_has_the_same_bytes_everywhere(
    dataset: str, digest: str, place: Place
) -> None:
    place.workspace.logs.mkdir()
    place.workspace.no_source.write_text("of an earlier attempt")
    sources.fetch(dataset, place.raw, place.workspace)
    assert not place.workspace.no_source.exists()
    files = files_of(place.raw)
    names = {"digits": [*FILES["train"], *FILES["test"]], "synthetic": [*HOUSE_FILES.values()]}
    assert sorted(files) == sorted(names[dataset])
    content = b"".join(files[name] for name in sorted(files))
    assert hashlib.sha256(content).hexdigest() == digest


def test_digits_are_enlarged(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    write_all(tmp_path / "digits", synthetic.digits())
    parts = splits.split(tmp_path / "digits", limit=None, validation=0, seed=0)
    train, test = parts["train"], parts["test"]
    assert (len(train.labels), len(test.labels)) == (1500, 297)
    assert np.array_equal(np.concatenate([train.labels, test.labels]), labels)
    pixels = np.concatenate([train.images, test.images]).reshape(-1, 28, 28)
    for row, column in np.ndindex(28, 28):
        y, x = (row - 2) // 3, (column - 2) // 3
        inside = 0 <= y < 8 and 0 <= x < 8
        expected = np.floor(values[:, 8 * y + x] * 255 / 16 + 0.5) if inside else 0
        assert (pixels[:, row, column] == expected).all()


def test_houses_by_the_same_rules(place: Place, monkeypatch) -> None:
    houses, pinned = place.workspace.houses, catalogue.HOUSES["kaggle"]
    sources.fetch("synthetic", houses, place.workspace)
    monkeypatch.setenv(catalogue.VARIABLE, str(houses))
    monkeypatch.setitem(catalogue.HOUSES, "kaggle", dataclasses.replace(pinned, mirrors=()))
    lines = place.fails("kaggle")
    train = HOUSE_FILES["train"]
    actual = hashlib.sha1((houses / train).read_bytes()).hexdigest()
    assert lines[0] == "house_prices: no source has its files. Tried:"
    assert lines[1] == f"  {houses}: {train} has SHA1 {actual}, not {pinned.checksums[train]}"


@pytest.mark.parametrize("dataset", ["fashion_mnist", "mnist", "kmnist"])
def test_the_catalogue_agrees_with_torchvision(dataset: str) -> None:
    from torchvision import datasets

    pinned = catalogue.DATASETS[dataset]
    theirs = getattr(datasets, str(pinned.torchvision))
    assert pinned.classes == tuple(name.partition(" - ")[0] for name in theirs.classes)
    assert pinned.checksums == dict(theirs.resources)
    assert [*sources.mirrors(pinned)] == [*theirs.mirrors, *pinned.mirrors]
    assert all(folder.endswith("/") for folder in sources.mirrors(pinned))
