"""The house rules that a reader relies on: which way imports go, and that every knob is real."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from refashion.base import params, paths
from refashion.base.params.studies import HouseModelParams, StudiesParams

PACKAGE = paths.ROOT / "src" / "refashion"
STAGES = paths.ROOT / "stages"

ORDER = [
    "errors",
    "paths",
    "files",
    "params",
    "portable",
    "data",
    "training",
    "selftest",
    "studies",
    "evaluation",
    "tracking",
    "serving",
    "reporting",
    "reproduction",
    "cli",
]
"""A part of the package may import from those above it, never from those below."""

FORBIDDEN = {"portable": {"errors", "paths", "files", "params"}, "training": {"params"}}
"""What a part may not import although it stands above."""

THIRD_PARTY = {
    "errors": set(),
    "paths": set(),
    "files": set(),
    "portable": {"torch"},
    "training": {"torch", "numpy", "safetensors"},
    "selftest": {"torch"},
}
"""All that the parts which also run without the rest of the environment may import."""


def imports(tree: ast.AST, inside: tuple[str, ...]) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            module = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*module, alias.name]) for alias in node.names)


@functools.cache
def modules() -> list[tuple[str, set[str]]]:
    """Give the part each module of the package belongs to, and what it imports."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        inside = ("refashion", *file.relative_to(PACKAGE).parts[:-1])
        part = file.relative_to(PACKAGE).with_suffix("").parts[0]
        found.append((part, set(imports(ast.parse(file.read_text()), inside))))
    return [(part, names) for part, names in found if part != "__init__"]


def test_every_part_has_its_place_in_the_order() -> None:
    assert {part for part, _ in modules()} <= set(ORDER)


@pytest.mark.parametrize("part", ORDER)
def test_imports_go_upwards(part: str) -> None:
    allowed = set(ORDER[: ORDER.index(part) + 1]) - FORBIDDEN.get(part, set())
    for other, names in modules():
        own = {name.split(".")[1] for name in names if name.startswith("refashion.")}
        assert other != part or own <= allowed


@pytest.mark.parametrize("part", THIRD_PARTY)
def test_third_party_imports(part: str) -> None:
    for other, names in modules():
        tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"refashion"}
        assert other != part or tops <= THIRD_PARTY[part]


def test_stages_import_no_stage() -> None:
    stages = {file.stem for file in STAGES.glob("*.py")}
    for file in STAGES.glob("*.py"):
        assert stages.isdisjoint(imports(ast.parse(file.read_text()), ()))


def test_relative_imports_are_resolved() -> None:
    tree = ast.parse("from . import a\nfrom ..b import c\nimport d.e\nfrom f import g")
    expected = {"refashion.data.a", "refashion.b.c", "d.e", "f.g"}
    assert set(imports(tree, ("refashion", "data"))) == expected


STUDIES = [field.annotation for field in StudiesParams.model_fields.values()] + [HouseModelParams]
"""The models of every study's settings."""


def settings() -> dict[str, object]:
    """Read params.yaml as it stands, past all validation."""
    return yaml.safe_load(paths.PARAMS.read_text())


def test_params_yaml_holds_every_setting_and_no_other() -> None:
    raw = settings()
    assert set(raw) == set(params.Params.model_fields)
    assert set(raw["data"]) == set(params.DataParams.model_fields)
    written = {key for variant in raw["variants"].values() for key in variant}
    assert written == set(params.VariantParams.model_fields)


def attributes(files: Iterator[Path]) -> set[str]:
    """Names of the attributes that the code in some files reads."""
    return {
        node.attr
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def test_every_setting_is_read_by_code() -> None:
    """By a stage, by the training, which is handed its settings resolved, or by the gate."""
    training = attributes((PACKAGE / "training").glob("*.py"))
    resolved = set(params.load().resolved("mlp"))
    assert resolved <= training
    stages = attributes(STAGES.glob("*.py"))
    whole = set(params.Params.model_fields) | set(params.DataParams.model_fields)
    gate = attributes((PACKAGE / "reproduction").glob("gate.py"))
    assert whole - resolved - stages == {"gates", "studies"}
    assert "gates" in gate
    studies = attributes((PACKAGE / "studies").glob("*.py"))
    asked = {name for model in STUDIES for name in model.model_fields}
    assert asked <= stages | studies


def test_every_setting_has_a_comment() -> None:
    named = set(params.Params.model_fields) | set(params.DataParams.model_fields)
    for line in paths.PARAMS.read_text().splitlines():
        key = re.match(" {0,2}([a-z_]+):(?! *$)", line)
        if key and key[1] in named - {"data", "variants", "studies", "gates"}:
            assert "#" in line


def test_every_setting_of_a_study_has_a_comment() -> None:
    block = paths.PARAMS.read_text().partition("\nstudies:\n")[2].partition("\ngates:")[0]
    lines = [line for line in block.splitlines() if re.match("    [a-z_]+:", line)]
    assert len(lines) == sum(len(m.model_fields) for m in STUDIES[:-1])
    assert all("#" in line or line == "    models:" for line in lines)


def test_every_setting_is_a_param_of_some_stage() -> None:
    files = (paths.ROOT / "dvc.yaml", *STAGES.glob("*/dvc.yaml"))
    stages = {k: v for f in files for k, v in yaml.safe_load(f.read_text())["stages"].items()}
    declared = {p for s in stages.values() for p in s.get("do", s).get("params", [])}
    assert {f"studies.{name}" for name in StudiesParams.model_fields} <= declared
    assert {p.split(".")[0] for p in declared} == set(settings()) - {"gates"}
