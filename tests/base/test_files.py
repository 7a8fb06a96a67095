import csv
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refashion.base import files


def test_json_is_canonical(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.json"
    files.write_json(path, {"b": 0.1, "a": {"d": 1, "c": None}})
    text = path.read_bytes().decode()
    assert text == '{\n  "a": {\n    "c": null,\n    "d": 1\n  },\n  "b": 0.1\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_json_refuses_what_json_cannot_hold(tmp_path: Path, value: float) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": value})
    assert path.read_text() == "old"


@given(st.lists(st.tuples(st.text("ab,\"' é\n/"), st.floats(allow_nan=False)), max_size=5))
def test_csv_reads_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    files.write_csv(path, ["name", "value"], rows)
    assert b"\r" not in path.read_bytes()
    with path.open(encoding="utf-8", newline="") as file:
        header, *read = list(csv.reader(file))
    assert header == ["name", "value"]
    assert [(name, float(value)) for name, value in read] == rows


def test_csv_has_the_same_bytes_in_every_version_of_python(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    texts = ["a,b", 'a"b', "a\nb", " a ", "", "#a", "é\x85\u2028", "a\tb", "\\"]
    numbers = [0.1, 1e16, 1e-05, -0.0, 5e-324, 1, True, None]
    files.write_csv(path, ["text", "number"], zip(texts, [*numbers, 2**70], strict=True))
    assert path.read_text(encoding="utf-8") == (
        'text,number\n"a,b",0.1\n"a""b",1e+16\n"a\nb",1e-05\n a ,-0.0\n,5e-324\n#a,1\n'
        "é\x85\u2028,True\na\tb,\n\\,1180591620717411303424\n"
    )


@pytest.mark.parametrize("row", [["a\rb", 1], [1, "\r\n"]])
def test_csv_refuses_carriage_returns(tmp_path: Path, row: list[object]) -> None:
    with pytest.raises(ValueError, match="holds a carriage return"):
        files.write_csv(tmp_path / "x.csv", ["a", "b"], [row])
    assert not list(tmp_path.iterdir())


def test_interrupted_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    files.write_csv(path, ["a"], [[1]])

    def rows() -> Iterator[list[int]]:
        yield [2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_csv(path, ["a"], rows())
    assert path.read_text() == "a\n1\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power leaves the old file or the new one, never an empty one."""
    path, seen = tmp_path / "x.json", []

    def fsync(descriptor: int) -> None:
        inode = os.fstat(descriptor).st_ino
        names = [file for file in (tmp_path, *tmp_path.iterdir()) if file.stat().st_ino == inode]
        seen.append((names[0], names[0].stat().st_size if names[0].is_file() else path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(path, "12345")
    (temporary, size), folder = seen
    assert temporary != path and size == 5 and folder == (tmp_path, True)


def test_a_link_is_replaced_not_written_through(tmp_path: Path) -> None:
    """DVC may link outputs to its cache, which nobody must change."""
    cached, path = tmp_path / "cached", tmp_path / "out.json"
    cached.write_text("cached")
    path.symlink_to(cached)
    files.write_json(path, [])
    assert cached.read_text() == "cached"
    assert json.loads(path.read_text()) == []


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    files.write_text(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@given(content=st.binary(), key=st.text(), place=st.integers(0), bit=st.integers(0, 7))
def test_a_sealed_file_is_read_whole_and_with_its_key_or_not_at_all(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, key: str, place: int, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "sealed"
    files.write_sealed(path, key, content)
    assert files.read_sealed(path, key) == content
    assert files.read_sealed(path, key + "x") is None
    written = bytearray(path.read_bytes())
    written[place % len(written)] ^= 1 << bit
    for damaged in (written, written[:-1], b""):
        path.write_bytes(damaged)
        assert files.read_sealed(path, key) is None
