"""YAML as DVC reads it: the same values, or a refusal."""

import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML, YAMLError

from refashion.base.params import yaml12

PLAIN: dict[str, Any] = {
    **{"1e-05": 1e-05, "1e5": 1e5, "1E-5": 1e-5, ".5": 0.5, "5.": 5.0, "1.e5": 1e5, "+.5": 0.5},
    **{"0o17": 15, "017": 17, "010": 10, "08": 8, "0x1F": 31, "0b11": 3, "1_000": 1000, "-0": 0},
    **{".inf": math.inf, "-.Inf": -math.inf, "1e999": math.inf, "1.0_1": 1.01, ".5e+5": 5e4},
    **{"1:30": "1:30", "190:20:30": "190:20:30", "1:30.5": "1:30.5", "nan": "nan", "1e": "1e"},
    **{"yes": "yes", "No": "No", "on": "on", "off": "off", "y": "y", "tRue": "tRue", "._5": 0.5},
    **{"true": True, "TRUE": True, "False": False, "~": None, "null": None, "Null": None, "": None},
    **{"'1'": "1", '"0.1"': "0.1", "2026-01-01": date(2026, 1, 1)},
}
SCALARS = st.one_of(
    st.text("0123456789._-+eExXobnaNifIF", min_size=1, max_size=8),
    st.sampled_from([*filter(None, PLAIN), ".nan", "._", "-", "_1", "=", "<<", "0o8", "1e1_0"]),
    st.floats(allow_nan=False).map(repr),
    st.integers().map(str),
)
FLOW = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.lists(st.tuples(SCALARS, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)


def as_dvc_reads(text: str, pure: bool = True) -> Any:
    """What ruamel.yaml makes of a document, alone or with libyaml; None where it refuses."""
    try:
        return YAML(typ="safe", pure=pure).load(text)
    except (YAMLError, ValueError, TypeError, NotImplementedError):
        return None


def same(ours: Any, theirs: Any) -> bool:
    """Whether two values are equal and of the same kind throughout, and NaN where the other is."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return same([*ours], [*theirs]) and same([*ours.values()], [*theirs.values()])
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs or (ours != ours and theirs != theirs)


def agrees(ours: Any, text: str) -> bool:
    """Whether DVC reads the same; with libyaml it may refuse a colon within braces."""
    with_libyaml = as_dvc_reads(text, pure=False)
    return same(ours, as_dvc_reads(text)) and (with_libyaml is None or same(ours, with_libyaml))


PAIRS = st.lists(st.tuples(st.one_of(st.sampled_from("abcd"), SCALARS), FLOW), max_size=4)
PIECES = (
    "a|b: |- |? |\n|\n  |{|}|[|]|, |&a |*a|<<: *a|!!int |!x |'|\"|%|@|# |0x|1|.nan|2026-01-01|\t|é"
)


@settings(max_examples=500)
@given(
    PAIRS.map(lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs))
    | st.lists(st.sampled_from([*PIECES.split("|"), "|\n", ">"]), max_size=25).map("".join)
)
def test_what_dvc_reads_or_a_refusal_in_one_line(text: str) -> None:
    try:
        ours = yaml12.parse(text.encode())
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert agrees(ours, text)


@pytest.mark.parametrize(("text", "value"), PLAIN.items())
def test_plain_scalars(text: str, value: Any) -> None:
    for document in (f"a: {text}\n", f"a: [{text}]\n" if text else "a:\n"):
        ours = yaml12.parse(document.encode())
        assert same(ours, {"a": [value] if "[" in document else value})
        assert agrees(ours, document)


def test_anchors_and_merges() -> None:
    text = "a: &a {x: 1e-3, y: 2}\nb: &b {<<: *a, y: 3}\nc: {z: *a, <<: *b}\n"
    a, b = {"x": 1e-3, "y": 2}, {"x": 1e-3, "y": 3}
    assert yaml12.parse(text.encode()) == {"a": a, "b": b, "c": {**b, "z": a}}
    assert as_dvc_reads(text) == {"a": a, "b": b, "c": {**b, "z": a}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a stands here a second time; remove one"),
        ("a:\n  b: 1\n  b: 1\n", "line 3: b stands here a second time; remove one"),
        ("a: {<<: {b: 1, b: 2}}\n", "line 1: b stands here a second time; remove one"),
        *((f"x:\n  {key}: 1\n", "line 2: a key that is not text; put it in quotes")
          for key in ("1", "1e3", "true", "~", "2026-01-01", "? [a]\n ", "=")),
        ("%YAML 1.1\n---\na: 010\n", "line 1: a directive; remove it"),
        ("a: 0.1\nseed: [0\nb: 1\n", "line 3: "),
        ("a: 0.1\n\tseed: 0\n", "line 2: "),
        ("a: &a\nb: *b\n", "line 2: found undefined alias 'b'"),
        ("a: !!python/object:os.system 1\n", "line 1: a tag; remove it"),
        ("a: 1\nb: !!bool maybe\n", "line 2: a tag; remove it"),
        ("a: 1\n---\nb: 1\n", "line 2: but found another document"),
        ("a: 2026-13-45\n", "not legal YAML: month must be in 1..12"),
        ("a: 0x_\n", "not legal YAML: invalid literal for int"),
        ("a: \x00\n", "not legal YAML: unacceptable character"),
        ("a: \udcff\n", "not legal YAML: "),
        ("[" * 1000, "not legal YAML: maximum recursion depth"),
        ("a: " + "9" * 5000, "not legal YAML: Exceeds the limit"),
    ],
)  # fmt: skip
def test_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        yaml12.parse(text.encode(errors="surrogateescape"))
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1
