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


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.array([0, 9, 3, 3, 1], dtype=np.uint8)


def test_read(pack: Pack, images: np.ndarray, labels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "images.gz").write_bytes(pack(images))
    (tmp_path / "labels.gz").write_bytes(pack(labels))
    assert np.array_equal(idx.read_images(tmp_path / "images.gz"), images.reshape(5, 784))
    assert np.array_equal(idx.read_labels(tmp_path / "labels.gz"), labels)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(labels=npst.arrays(np.uint8, st.integers(0, 200_000), elements=st.integers(0, 9)))
def test_labels_come_back_as_written(labels: np.ndarray, tmp_path: Path) -> None:
    idx.write(tmp_path / "labels.gz", labels)
    assert np.array_equal(idx.read_labels(tmp_path / "labels.gz"), labels)
    # A gzip reader that was not written here takes it too.
    assert gzip.decompress((tmp_path / "labels.gz").read_bytes())[8:] == labels.tobytes()


@pytest.mark.parametrize("n", [0, 1, 83, 84, 300])
def test_images_come_back_as_written(n: int, tmp_path: Path) -> None:
    images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
    idx.write(tmp_path / "images.gz", images)
    assert np.array_equal(idx.read_images(tmp_path / "images.gz"), images.reshape(n, 784))


def refuses(content: bytes, problem: str, *, kind: str = "images") -> None:
    with pytest.raises(UserError) as caught:
        (idx.parse_images if kind == "images" else idx.parse_labels)(content, "some-file.gz")
    assert str(caught.value).startswith("some-file.gz: ")
    assert "\n" not in str(caught.value)
    assert problem in str(caught.value)


def test_what_is_not_gzip() -> None:
    refuses(b"<html>log in first</html>", "not a sound gzip file")
    refuses(b"", "truncated")


def test_gzip_cut_anywhere(pack: Pack, images: np.ndarray) -> None:
    content = pack(images)
    for size in (1, 5, 20, len(content) // 2, len(content) - 8, len(content) - 1):
        refuses(content[:size], "truncated")


def test_a_flipped_bit(pack: Pack, labels: np.ndarray) -> None:
    content = bytearray(pack(labels))
    content[-5] ^= 1  # in the checksum of the gzip stream
    refuses(bytes(content), "not a sound gzip file", kind="labels")


def test_bytes_after_the_stream(pack: Pack, images: np.ndarray) -> None:
    refuses(pack(images) + b"more", "4 bytes follow the gzip stream")


def test_what_unpacks_without_end() -> None:
    refuses(gzip.compress(bytes(idx.MAX_BYTES + 1), compresslevel=1), "more than 134217728 bytes")


def test_wrong_magic_number(pack: Pack, images: np.ndarray, labels: np.ndarray) -> None:
    refuses(pack(labels), "magic number is 2049, not 2051")
    refuses(pack(images), "magic number is 2051, not 2049", kind="labels")
    refuses(pack(images, magic=2**32 - 1), "magic number is 4294967295")


@pytest.mark.parametrize("count", [0, 4, 6, 2**32 - 1])
def test_wrong_count(pack: Pack, images: np.ndarray, labels: np.ndarray, count: int) -> None:
    refuses(pack(images, count=count), f"promises {count} items ({count * 784} bytes), but 3920")
    refuses(pack(labels, count=count), f"promises {count} items", kind="labels")


def test_short_header() -> None:
    refuses(gzip.compress(b""), "magic number is 0, not 2051")
    refuses(gzip.compress(b"\0\0\x08\x03\0"), "header has 5 bytes, not 16")


def test_wrong_size_of_image(pack: Pack) -> None:
    refuses(pack(np.zeros((3, 32, 24), dtype=np.uint8)), "images are 32 x 24, not 28 x 28")


def test_label_above_9(pack: Pack, labels: np.ndarray) -> None:
    labels[3] = 10
    refuses(pack(labels), "label 3 is 10, not in 0 to 9", kind="labels")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.gz: is missing; run the stage `download`"):
        idx.read_labels(tmp_path / "gone.gz")
