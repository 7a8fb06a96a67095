"""A reader of YAML 1.2: it agrees with DVC's, or refuses what that might read otherwise."""

import re
from typing import Any

import yaml

_PLAIN = {
    "bool": ("tTfF", r"true|True|TRUE|false|False|FALSE"),
    "int": ("-+0123456789", r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9_]+)"),
    "float": (
        "-+.0123456789",
        r"[-+]?[0-9][0-9_]*(\.[0-9_]*([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)"
        r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    ),
}
"""Kind of an unquoted scalar -> its first characters and its pattern: those of ruamel.yaml, by
which DVC reads. They are the core schema's (https://yaml.org/spec/1.2.2/#103-core-schema) with
``0b`` and ``_`` besides."""

_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class _Loader(yaml.SafeLoader):
    """PyYAML's reader with the numbers and booleans of YAML 1.2; each key is text and unique."""

    def construct_integer(self, node: Any) -> int:
        text = node.value.replace("_", "")
        return int(text, 0 if re.match("[-+]?0[box]", text) else 10)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
                raise _refusal("a key that is not text; put it in quotes", key.start_mark)
            if key.value in seen:
                raise _refusal(f"{key.value} stands here a second time; remove one", key.start_mark)
            seen.add(key.value)
        return node

    def fetch_tag(self) -> None:
        raise _refusal("a tag; remove it", self.get_mark())

    def fetch_directive(self) -> None:
        raise _refusal("a directive; remove it", self.get_mark())


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in kinds if tag.rpartition(":")[2] not in _PLAIN]
    for first, kinds in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_first, _pattern) in _PLAIN.items():
    _regex = re.compile(rf"({_pattern})\Z")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", _regex, list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def _refusal(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def parse(content: bytes) -> Any:
    """Read one YAML document in UTF-8.

    `ValueError` if it is not legal YAML, or holds a tag, a directive, a key twice or a key that is
    not text: one line, with the number of the document's line where it is known.
    """
    try:
        return yaml.load(content.decode(), _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"line {line}: {' '.join(str(error.problem).split())}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"not legal YAML: {' '.join(str(error).split())}") from None
