"""What is wrong in ``params.yaml``, a line for each mistake."""

import functools
import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

LONGEST = 200
"""Characters of a value or a key that a line shows."""


def explain(raw: dict[str, Any], error: ValidationError, model: type[BaseModel]) -> list[str]:
    """A line for each mistake in `raw`: the key, its value and what is legal in a `model`.

    However many items of a list are wrong, it has one line.
    """
    schema = _schema(model)
    return list(dict.fromkeys(_line(raw, mistake, schema) for mistake in error.errors()))


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema of a model, which takes longer to write than all that is done with it."""
    return model.model_json_schema()


def show(value: Any) -> str:
    """A value as ``params.yaml`` has it, on one line and not too long."""
    text = "empty" if value is None else reprlib.repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _line(raw: dict[str, Any], mistake: ErrorDetails, schema: dict[str, Any]) -> str:
    kind, location = mistake["type"], mistake["loc"]
    if kind == "value_error":
        return ": ".join([*filter(None, [_dotted(location)]), str(mistake["ctx"]["error"])])
    if location[-1] == "[key]":
        return (
            f"{_dotted(location[:-2])}: {show(mistake['input'])} is no legal name; it must be "
            "letters, digits, _ and -, a letter or digit first, 64 at most"
        )
    value: Any = raw
    node, depth = schema, 0
    while depth < len(location) and (child := _child(node, location[depth], schema["$defs"])):
        part = location[depth]
        value = value[part] if isinstance(part, int) else value.get(part)
        node, depth = child, depth + 1
    key = _dotted(location[:depth])  # of a list of numbers, not of an item in it
    known = list(node.get("properties", {}))
    if kind == "extra_forbidden":
        near = get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return f"{_dotted(location)}: unknown key; {hint}"
    if known:
        legal = f"a mapping of {', '.join(known)}"
    elif "enum" in node:
        legal = f"one of {', '.join(node['enum'])}"
    else:
        legal = "true or false" if node.get("type") == "boolean" else node["description"]
    return f"{key} {'is missing' if kind == 'missing' else f'is {show(value)}'}; it must be {legal}"


def _dotted(location: Iterable[str | int]) -> str:
    """A key as people write it: ``gates[0].run``."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{_short(part)}" for part in location
    ).removeprefix(".")


def _short(part: str) -> str:
    if len(part) > LONGEST:
        part = f"{part[:LONGEST]}..."
    return part if part.isprintable() else repr(part)


def _child(node: dict[str, Any], part: str | int, definitions: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of a part of a mapping or of a list of mappings; empty if there is none."""
    if isinstance(part, int):
        items = node.get("items", {})
        return definitions[items["$ref"].rpartition("/")[2]] if "$ref" in items else {}
    values = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
    child = node.get("properties", {}).get(part) or values[0] or {}
    return definitions[child["$ref"].rpartition("/")[2]] if "$ref" in child else child
