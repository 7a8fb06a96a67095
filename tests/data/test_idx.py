import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from official import pack
from refashion.base.errors import UserError
from refashion.data import idx

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], dtype=np.uint8)


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


SOUND = pack(IMAGES)
WRONG_CHECKSUM = SOUND[:-5] + bytes([SOUND[-5] ^ 1]) + SOUND[-4:]
ENDLESS = gzip.compress(bytes(idx.MAX_BYTES + 1), compresslevel=1, mtime=0)
LARGE = np.zeros((3, 32, 24), dtype=np.uint8)

REFUSED: list[tuple[Callable[[Path], np.ndarray], bytes, str]] = [
    *(
        (idx.read_images, content, "not a sound gzip file")
        for content in (b"<html>log in first</html>", WRONG_CHECKSUM, SOUND + b"more")
    ),
    *((idx.read_images, SOUND[:n], "not a sound gzip file") for n in (1, 5, 20, 2000, -8, -1)),
    (idx.read_images, b"", "magic number is 0, not 2051"),
    (idx.read_images, ENDLESS, "more than 134217728 bytes"),
    (idx.read_images, pack(LABELS), "magic number is 2049, not 2051"),
    (idx.read_images, pack(IMAGES, magic=2**32 - 1), "magic number is 4294967295"),
    *(
        (idx.read_images, pack(IMAGES, count=n), f"promises {n} items ({n * 784} bytes), but 3920")
        for n in (0, 4, 6, 2**32 - 1)
    ),
    (idx.read_images, gzip.compress(b"", mtime=0), "magic number is 0, not 2051"),
    (idx.read_images, gzip.compress(b"\0\0\x08\x03\0", mtime=0), "header has 5 bytes, not 16"),
    (idx.read_images, pack(LARGE), "images are 32 x 24, not 28 x 28"),
    (idx.read_labels, SOUND, "magic number is 2051, not 2049"),
    (idx.read_labels, pack(LABELS, count=4), "promises 4 items"),
    (idx.read_labels, pack(LABELS + 7), "label 1 is 16, not in 0 to 9"),
    (idx.read_labels, pack(LABELS + 1), "label 1 is 10, not in 0 to 9"),
]


@pytest.mark.parametrize(
    ("read", "content", "problem"), REFUSED, ids=[problem for _, _, problem in REFUSED]
)
def test_refused(
    read: Callable[[Path], np.ndarray], content: bytes, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and problem in message and "\n" not in message
    assert message.endswith("; fetch the official file again")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.gz: is missing; run the stage `download`"):
        idx.read_labels(tmp_path / "gone.gz")
