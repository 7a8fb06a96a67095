"""What the system refuses is one line that names the file, the reason and the way out."""

from pathlib import Path

import numpy as np
import pytest

from refashion.base.errors import one_line
from refashion.data import prepared

FULL = Path("/dev/full")


@pytest.mark.parametrize("name", ["train", "train/images.npy"])
def test_what_is_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "train").mkdir()
    if name == "train":
        (tmp_path / name).rmdir()
        (tmp_path / name).write_text("")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(OSError) as refused:
        prepared.save(tmp_path / "train", np.zeros((1, 784), np.uint8), np.zeros(1, np.uint8))
    line = one_line(refused.value)
    assert line.startswith(f"{tmp_path / name}: ")
    assert line.endswith("; move away what is in the way, then run it again")


def test_an_error_that_is_not_the_disk_s_blames_no_disk() -> None:
    told = one_line(OSError("not a gzipped file"))
    assert told == "not a gzipped file; mend that, then run it again"


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line_that_names_the_file() -> None:
    with pytest.raises(OSError) as refused, FULL.open("wb", buffering=0) as file:
        file.write(b"x")
    assert "free some space" in one_line(refused.value)
    short = OSError("784 requested and 0 written")  # as numpy has it
    short.filename = "images.npy"
    expected = "images.npy: 784 requested and 0 written; free some space, then run it again"
    assert one_line(short) == expected
