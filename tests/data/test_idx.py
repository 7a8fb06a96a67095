import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from refashion.base.errors import UserError
from refashion.data import idx

Pack = Callable[..., bytes]

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], dtype=np.uint8)


def test_read(pack: Pack, tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(pack(IMAGES))
    (tmp_path / "labels.gz").write_bytes(pack(LABELS))
    assert np.array_equal(idx.read_images(tmp_path / "images.gz"), IMAGES.reshape(5, 784))
    assert np.array_equal(idx.read_labels(tmp_path / "labels.gz"), LABELS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=npst.arrays(np.uint8, st.integers(0, 200_000), elements=st.integers(0, 9)))
def test_labels_come_back_as_packed(labels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "labels.gz").write_bytes(idx.pack(labels))
    assert np.array_equal(idx.read_labels(tmp_path / "labels.gz"), labels)
    # A gzip reader that was not written here takes it too.
    assert gzip.decompress((tmp_path / "labels.gz").read_bytes())[8:] == labels.tobytes()


@pytest.mark.parametrize("n", [0, 1, 83, 84, 300])
def test_images_come_back_as_packed(n: int, tmp_path: Path) -> None:
    images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(idx.pack(images))
    assert np.array_equal(idx.read_images(tmp_path / "images.gz"), images.reshape(n, 784))


def flip(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


ZEROS = np.zeros((3, 32, 24), dtype=np.uint8)
ENDLESS = bytes(idx.MAX_BYTES + 1)

REFUSED: list[tuple[Callable[[Pack], bytes], str]] = [
    (lambda pack: b"<html>log in first</html>", "not a sound gzip file"),
    (lambda pack: b"", "truncated"),
    *((lambda pack, n=n: pack(IMAGES)[:n], "truncated") for n in (1, 5, 20, 2000, -8, -1)),
    (lambda pack: flip(pack(IMAGES), -5), "not a sound gzip file"),  # in the gzip's checksum
    (lambda pack: pack(IMAGES) + b"more", "4 bytes follow the gzip stream"),
    (lambda pack: gzip.compress(ENDLESS, compresslevel=1), "more than 134217728 bytes"),
    (lambda pack: pack(LABELS), "magic number is 2049, not 2051"),
    (lambda pack: pack(IMAGES, magic=2**32 - 1), "magic number is 4294967295"),
    *(
        (lambda pack, n=n: pack(IMAGES, count=n), f"promises {n} items ({n * 784} bytes), but 3920")
        for n in (0, 4, 6, 2**32 - 1)
    ),
    (lambda pack: gzip.compress(b""), "magic number is 0, not 2051"),
    (lambda pack: gzip.compress(b"\0\0\x08\x03\0"), "header has 5 bytes, not 16"),
    (lambda pack: pack(ZEROS), "images are 32 x 24, not 28 x 28"),
]


@pytest.mark.parametrize(("content", "problem"), REFUSED)
def test_images_refused(
    content: Callable[[Pack], bytes], problem: str, pack: Pack, tmp_path: Path
) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content(pack))
    with pytest.raises(UserError) as caught:
        idx.read_images(path)
    assert str(caught.value).startswith(f"{path}: ") and problem in str(caught.value)
    assert str(caught.value).endswith("; fetch the official file again")
    assert "\n" not in str(caught.value)


def test_labels_refused(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    for content, problem in {
        pack(IMAGES): "magic number is 2051, not 2049",
        pack(LABELS, count=4): "promises 4 items",
        pack(LABELS + 7): "label 1 is 16, not in 0 to 9",
        pack(LABELS + 1): "label 1 is 10, not in 0 to 9",
    }.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            idx.read_labels(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.gz: is missing; run the stage `download`"):
        idx.read_labels(tmp_path / "gone.gz")
