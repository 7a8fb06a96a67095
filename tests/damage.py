"""Content and settings that are damaged at random, as Hypothesis draws them."""

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from refashion.base import params


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Content with bytes altered, cut out, put in or written twice, or anything else."""
    places = st.integers(0, len(content))

    def damage(cuts: list[tuple[int, int, bytes]]) -> bytes:
        result = content
        for place, length, new in cuts:
            result = result[:place] + new + result[place + length :]
        return result

    cuts = st.tuples(places, st.integers(0, 9) | places, st.binary(max_size=9))
    return st.lists(cuts, min_size=1, max_size=4).map(damage) | st.binary(max_size=99)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a value, with each key or index in it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def change(value: Any, draw: st.DrawFn, keys: st.SearchStrategy[str]) -> None:
    """Replace, remove or add something somewhere in a value."""
    all_places = list(places(value))
    if not all_places:
        return
    container, key = all_places[draw(st.integers(0, len(all_places) - 1))]
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            container[key] = draw(VALUES)
        case "remove":
            del container[key]
        case "add" if isinstance(container, dict):
            container[draw(keys)] = draw(VALUES)


def schema_keys() -> list[str]:
    """Every key that params.yaml may have, optional ones too."""
    schema = params.Params.model_json_schema()
    nodes = [schema, *schema["$defs"].values()]
    return sorted({name for node in nodes for name in node.get("properties", {})})


KEYS = st.sampled_from(schema_keys()) | st.text(max_size=70)
HOSTILE = st.sampled_from(
    ["x; touch pwned", "$(id)", "../x", "", "my model", "1e-05", "nan", "\0", "<<", "*a", "é\u2028"]
)


@functools.cache
def settings_of(file: Path) -> Any:
    """What a file says: to read it takes longer than all that is done with it."""
    return yaml.safe_load(file.read_text())


@st.composite
def changed_params(draw: st.DrawFn, file: Path) -> str:
    """The settings of a file with up to three changes, hostile ones too."""
    raw = copy.deepcopy(settings_of(file))
    for _ in range(draw(st.integers(1, 3))):
        change(raw, draw, KEYS | HOSTILE)
    return yaml.dump(raw, Dumper=yaml.CSafeDumper, allow_unicode=draw(st.booleans()))
