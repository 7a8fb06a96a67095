import gzip
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.data import idx, sources
from refashion.data.catalogue import FILES

Files = dict[str, bytes]
TRAIN_IMAGES, TRAIN_LABELS = FILES["train"]
TEST_IMAGES, TEST_LABELS = FILES["test"]


class Mirror:
    """A web server on loopback, and what it does with a request besides answering it."""

    def __init__(self, files: Files) -> None:
        self.files = dict(files)
        self.behaviour: dict[str, Callable[[BaseHTTPRequestHandler, bytes], None]] = {}
        self.asked: list[str] = []
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                mirror.asked.append(name)
                if name not in mirror.files:
                    self.send_error(404)
                    return
                mirror.behaviour.get(name, send)(self, mirror.files[name])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/data/"


def send(handler: BaseHTTPRequestHandler, content: bytes, size: int | None = None) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content) if size is None else size))
    handler.end_headers()
    handler.wfile.write(content)


def send_half(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    send(handler, content[: len(content) // 2], len(content))


def send_without_length(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(content)


def stay_silent(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    time.sleep(5)


def drip(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    send(handler, b"", len(content))
    for byte in content:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.02)


@pytest.fixture
def start_mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Files], Mirror]]:
    """Starts loopback mirrors; they end with the test."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = []

    def start(files: Files) -> Mirror:
        mirror = Mirror(files)
        threading.Thread(target=mirror.server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(mirror)
        return mirror

    yield start
    for mirror in started:
        mirror.server.shutdown()
        mirror.server.server_close()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout that is the user's own."""
    root = tmp_path / "home" / "checkout"
    root.mkdir(parents=True)
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "MAIN_ROOT", root)
    monkeypatch.setattr(paths, "NO_SOURCE", root / "logs" / "no-source.txt")
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    return root


@pytest.fixture
def pin(official_files: Files, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pins the tiny files as the official ones, with the mirrors it is given."""

    def pin(*mirrors: str) -> None:
        md5 = {name: hashlib.md5(content).hexdigest() for name, content in official_files.items()}
        pinned = sources.Official(checksums=md5, mirrors=lambda: mirrors)
        monkeypatch.setattr(sources, "official", lambda dataset: pinned)

    pin()
    return pin


def put(folder: Path, files: Files) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fails(folder: Path, dataset: str = "kmnist") -> str:
    """The message of a fetch that fails and leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        sources.fetch(dataset, folder)
    assert not folder.exists()
    message = str(caught.value)
    assert paths.NO_SOURCE.read_text() == message + "\n"
    return message


def test_folder_of_the_environment(
    checkout: Path,
    pin: Callable[..., None],
    raw: Path,
    official_files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(sources.VARIABLE, str(raw))
    sources.fetch("kmnist", checkout / "data" / "raw")
    assert files_of(checkout / "data" / "raw") == official_files
    said = capsys.readouterr()
    assert said.out == f"kmnist: official files from {raw}, checksums right\n"
    assert said.err == ""


def test_folder_of_folders(
    checkout: Path, pin: Callable[..., None], official_files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A relative name is one from the user's checkout, wherever the stage runs.
    put(checkout.parent / "sets" / "fashion-mnist", official_files)
    monkeypatch.setenv(sources.VARIABLE, "../sets")
    sources.fetch("fashion_mnist", checkout / "raw")
    assert files_of(checkout / "raw") == official_files


@pytest.mark.parametrize("root", ["ROOT", "MAIN_ROOT"])
def test_folder_beside_the_checkout(
    root: str,
    checkout: Path,
    pin: Callable[..., None],
    official_files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, root, tmp_path / "elsewhere" / "checkout")
    put(tmp_path / "elsewhere" / "shared" / "data" / "fashion-mnist", official_files)
    sources.fetch("fashion_mnist", checkout / "raw")
    assert files_of(checkout / "raw") == official_files


def test_order_of_the_sources(
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = start_mirror(official_files)
    pin(mirror.url)
    beside = put(checkout.parent / "shared" / "data" / "kmnist", official_files)
    monkeypatch.setenv(sources.VARIABLE, str(raw))
    for source in (raw, beside, mirror.url):
        sources.fetch("kmnist", checkout / "raw")
        assert f"from {source}," in capsys.readouterr().out
        if isinstance(source, Path):
            (source / TRAIN_LABELS).unlink()
    assert TRAIN_IMAGES not in mirror.asked  # a folder that lost its labels had given it


def test_mirror(
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = start_mirror(official_files)
    mirror.behaviour[TEST_IMAGES] = send_without_length
    pin(mirror.url)
    sources.fetch("kmnist", checkout / "raw")
    assert files_of(checkout / "raw") == official_files
    said = capsys.readouterr()
    assert f"downloading {mirror.url}{TRAIN_IMAGES}\n" in said.err
    assert said.out == f"kmnist: official files from {mirror.url}, checksums right\n"


def test_mirror_of_files(
    checkout: Path, pin: Callable[..., None], raw: Path, official_files: Files
) -> None:
    pin(raw.as_uri() + "/")
    sources.fetch("kmnist", checkout / "raw")
    assert files_of(checkout / "raw") == official_files


def test_bar_on_a_terminal(
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = start_mirror(official_files)
    pin(mirror.url)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    sources.fetch("kmnist", checkout / "raw")
    said = capsys.readouterr().err
    assert TRAIN_IMAGES in said
    assert "downloading" not in said


def test_lines_without_a_terminal(
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mirror = start_mirror(official_files)
    mirror.behaviour[TEST_LABELS] = send_without_length
    pin(mirror.url)
    monkeypatch.setattr(sources, "NOTE_EVERY", 0)
    sources.fetch("kmnist", checkout / "raw")
    said = capsys.readouterr().err
    assert f"{TRAIN_IMAGES}: 0.0 of 0.0 MB\n" in said
    assert f"{TEST_LABELS}: 0.0 MB\n" in said


@pytest.mark.parametrize(
    ("behaviour", "problem"),
    [
        (send_half, "the connection broke after"),
        (stay_silent, "no answer in 0.3 s"),
        (drip, "less than 65536 bytes in 0.3 s"),
    ],
)
def test_a_mirror_that_fails_gives_way_to_the_next(
    behaviour: Callable[[BaseHTTPRequestHandler, bytes], None],
    problem: str,
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.3)
    bad, good = start_mirror(official_files), start_mirror(official_files)
    bad.behaviour[TRAIN_LABELS] = behaviour
    pin(bad.url, good.url)
    started = time.monotonic()
    sources.fetch("kmnist", checkout / "raw")
    assert time.monotonic() - started < 3
    assert files_of(checkout / "raw") == official_files
    told = [line for line in capsys.readouterr().err.splitlines() if problem in line]
    assert len(told) == 1
    assert told[0].startswith(f"{bad.url}: {TRAIN_LABELS}: ")
    assert TRAIN_IMAGES not in good.asked


def test_no_source_in_reach(
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = start_mirror({})
    closed = start_mirror({})
    closed.server.shutdown()
    closed.server.server_close()
    pin(gone.url, closed.url)
    lines = fails(checkout / "raw").splitlines()
    beside = checkout.parent / "shared" / "data" / "kmnist"
    assert lines[0] == "kmnist: no source has its files. Tried:"
    assert lines[1:5] == [
        "  REFASHION_DATA: is not set",
        f"  {beside}: there is no such folder",
        f"  {gone.url}: {TRAIN_IMAGES}: HTTP 404 Not Found",
        f"  {closed.url}: {TRAIN_IMAGES}: Connection refused",
    ]
    assert "REFASHION_DATA=FOLDER dvc repro" in lines[5]
    assert all(name in lines[5] for name in (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS))
    assert lines[6].endswith("make demo")
    assert len(lines) == 7
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if not line.startswith("downloading ")] == [
        line.strip() for line in lines[2:5]
    ]


def test_a_name_that_no_server_knows(checkout: Path, pin: Callable[..., None]) -> None:
    pin("http://no-such-host.invalid/")
    assert f"http://no-such-host.invalid/: {TRAIN_IMAGES}: " in fails(checkout / "raw")


def test_a_server_that_speaks_something_else(checkout: Path, pin: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example.org ready\r\n")

        threading.Thread(target=answer, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        pin(url)
        assert f"{url}: {TRAIN_IMAGES}: " in fails(checkout / "raw")


def spoilt(files: Files, name: str, content: bytes) -> Files:
    return {**files, name: content}


def test_wrong_content_is_refused_by_name(
    checkout: Path,
    pin: Callable[..., None],
    official_files: Files,
    pack: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.full(40, 3, dtype=np.uint8)
    good = official_files[TRAIN_LABELS]
    cases = {
        good[:-9]: " (the gzip stream is truncated)",
        pack(labels, magic=2051): " (its IDX magic number is 2051, not 2049)",
        pack(labels, count=41): " (its header promises 41 items (41 bytes), but 40 bytes follow)",
        pack(labels + 7): " (label 0 is 10, not in 0 to 9)",
        pack(labels): "",  # sound, but not the official one
    }
    for i, (content, flaw) in enumerate(cases.items()):
        folder = put(tmp_path / str(i), spoilt(official_files, TRAIN_LABELS, content))
        monkeypatch.setenv(sources.VARIABLE, str(folder))
        found, official = (hashlib.md5(x).hexdigest() for x in (content, good))
        line = f"  {folder}: {TRAIN_LABELS} has MD5 {found}, not {official}{flaw}"
        assert line in fails(checkout / "raw").splitlines()


def test_wrong_content_of_a_mirror(
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
) -> None:
    page = b"<html>Please accept our terms to use this network</html>"
    mirror = start_mirror(dict.fromkeys(official_files, page))
    pin(mirror.url)
    assert f"{mirror.url}: {TRAIN_IMAGES} has MD5 " in (message := fails(checkout / "raw"))
    assert "(not a sound gzip file" in message


def test_failure_keeps_what_was_there(
    checkout: Path, pin: Callable[..., None], raw: Path, official_files: Files
) -> None:
    with pytest.raises(UserError):
        sources.fetch("kmnist", raw)
    assert files_of(raw) == official_files


def test_an_old_no_source_goes(
    checkout: Path, pin: Callable[..., None], raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(checkout / "raw")
    monkeypatch.setenv(sources.VARIABLE, str(raw))
    sources.fetch("kmnist", checkout / "raw")
    assert not paths.NO_SOURCE.exists()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Shells make what they start in the background deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_nothing(
    interruptible: None,
    checkout: Path,
    pin: Callable[..., None],
    start_mirror: Callable[[Files], Mirror],
    official_files: Files,
) -> None:
    mirror = start_mirror(official_files)

    def interrupt(handler: BaseHTTPRequestHandler, content: bytes) -> None:
        os.kill(os.getpid(), signal.SIGINT)  # to the main thread, as the terminal does
        time.sleep(1)

    mirror.behaviour[TEST_LABELS] = interrupt
    pin(mirror.url)
    with pytest.raises(KeyboardInterrupt):
        sources.fetch("kmnist", checkout / "data" / "raw")
    assert not (checkout / "data" / "raw").exists()
    assert not paths.NO_SOURCE.exists()


def test_folder_that_cannot_be_written(
    checkout: Path, pin: Callable[..., None], raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(sources.VARIABLE, str(raw))
    (checkout / "data").write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"data.* cannot be written \(.*\); free some space"):
        sources.fetch("kmnist", checkout / "data" / "raw")


def test_a_full_disk_is_no_fault_of_the_source(
    checkout: Path, pin: Callable[..., None], raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv(sources.VARIABLE, str(raw))
    monkeypatch.setattr(sources, "_take", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        sources.fetch("kmnist", checkout / "raw")
    assert not (checkout / "raw").exists()
    assert not paths.NO_SOURCE.exists()


def test_digits_need_no_source(checkout: Path, tmp_path: Path) -> None:
    sources.fetch("digits", tmp_path / "a")
    sources.fetch("digits", tmp_path / "b")
    files = files_of(tmp_path / "a")
    assert files == files_of(tmp_path / "b")
    assert sorted(files) == sorted(name for pair in FILES.values() for name in pair)
    # The bytes are the same on every machine: no compressor, no time.
    assert (
        hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
        == "260be9ef02f8ace073fc9402447d9fb4830d864e21c5a2cee11ec45a06233139"
    )


def test_digits_are_enlarged(checkout: Path, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    sources.fetch("digits", tmp_path / "raw")
    read = {
        part: (idx.read_images(tmp_path / "raw" / i), idx.read_labels(tmp_path / "raw" / j))
        for part, (i, j) in FILES.items()
    }
    assert [len(read[part][1]) for part in ("train", "test")] == [1500, 297]
    images = np.concatenate([read["train"][0], read["test"][0]]).reshape(-1, 28, 28)
    assert np.array_equal(np.concatenate([read["train"][1], read["test"][1]]), labels)
    for row in range(28):
        for column in range(28):
            y, x = (row - 2) // 3, (column - 2) // 3
            inside = 0 <= y < 8 and 0 <= x < 8
            wanted = np.floor(values[:, 8 * y + x] * 255 / 16 + 0.5) if inside else 0
            assert (images[:, row, column] == wanted).all()
    assert gzip.decompress((tmp_path / "raw" / TRAIN_IMAGES).read_bytes())[:4] == b"\0\0\x08\x03"
