"""The house rules that a reader relies on: which way imports go, and that every knob is real."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from refashion.base import params
from refashion.base.params.studies import HouseModelParams, StudiesParams
from refashion.base.params.sweeps import SweepParams
from refashion.base.workspace import Workspace

WORKSPACE = Workspace.here()
PACKAGE = WORKSPACE.root / "src" / "refashion"
STAGES = WORKSPACE.root / "stages"

ROOMS = [
    "base",
    "portable",
    "data",
    "training",
    "runs",
    "studies",
    "evaluation",
    "pictures",
    "tracking",
    "serving",
    "reproduction",
    "reporting",
    "selftest",
    "api",
    "cli",
]
"""A room may import from those above it, never from those below."""

ALLOWED = {"portable": set(), "training": {"base.errors", "base.machine", "portable"}}
"""All that a room may import of those above it, where that is less."""

THIRD_PARTY = {
    "portable": {"torch"},
    "training": {"torch", "numpy"},
    "selftest": {"torch"},
}
"""All that the rooms which also run without the rest of the environment may import."""


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a module imports, wherever in it; none of them is relative."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, ast.unparse(node)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def modules() -> list[tuple[str, set[str]]]:
    """Give the room that each module of the package belongs to, and what it imports."""
    found = []
    for file in sorted(PACKAGE.rglob("*.py")):
        room = file.relative_to(PACKAGE).with_suffix("").parts[0]
        found.append((room, set(imports(ast.parse(file.read_text())))))
    return [(room, names) for room, names in found if room != "__init__"]


def test_every_room_has_its_place_in_the_order() -> None:
    assert {room for room, _ in modules()} == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_upwards(room: str) -> None:
    above = ALLOWED.get(room, set(ROOMS[: ROOMS.index(room)])) | {room}
    for other, names in modules():
        own = {name.removeprefix("refashion.") for name in names if name.startswith("refashion.")}
        for name in own if other == room else ():
            assert any(f"{name}.".startswith(f"{allowed}.") for allowed in above), name


@pytest.mark.parametrize("room", THIRD_PARTY)
def test_third_party_imports(room: str) -> None:
    for other, names in modules():
        tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"refashion"}
        assert other != room or tops <= THIRD_PARTY[room]


def test_stages_import_no_stage() -> None:
    stages = {file.stem for file in STAGES.glob("*.py")}
    for file in STAGES.glob("*.py"):
        assert stages.isdisjoint(imports(ast.parse(file.read_text())))


STUDIES = [field.annotation for field in StudiesParams.model_fields.values()] + [HouseModelParams]
"""The models of every study's settings."""


def settings() -> dict[str, object]:
    """Read params.yaml as it stands, past all validation."""
    return yaml.safe_load(WORKSPACE.params_file.read_text())


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
    """By a stage, by a study, by the training or by the gate."""
    rooms = ("training/*.py", "studies/*.py", "reproduction/gate.py")
    read = attributes(STAGES.glob("*.py")).union(*(attributes(PACKAGE.glob(r)) for r in rooms))
    models = [params.Params, params.DataParams, params.VariantParams, SweepParams, *STUDIES]
    assert {name for model in models for name in model.model_fields} <= read


def test_every_setting_has_a_comment() -> None:
    named = set(params.Params.model_fields) | set(params.DataParams.model_fields)
    for line in WORKSPACE.params_file.read_text().splitlines():
        key = re.match(" {0,2}([a-z_]+):(?! *$)", line)
        if key and key[1] in named - {"data", "variants", "studies", "sweeps", "gates"}:
            assert "#" in line


def test_every_setting_of_a_study_has_a_comment() -> None:
    block = WORKSPACE.params_file.read_text().partition("\nstudies:\n")[2]
    lines = [line for line in block.splitlines() if re.match("    [a-z_]+:", line)]
    assert len(lines) == sum(len(m.model_fields) for m in STUDIES[:-1])
    assert all("#" in line or line == "    models:" for line in lines)


def test_every_setting_is_a_param_of_some_stage() -> None:
    files = (WORKSPACE.root / "dvc.yaml", *STAGES.glob("*/dvc.yaml"))
    stages = {k: v for f in files for k, v in yaml.safe_load(f.read_text())["stages"].items()}
    declared = {p for s in stages.values() for p in s.get("do", s).get("params", [])}
    assert {"studies.${key}", "studies.k_fold", "studies.house_prices.dataset"} <= declared
    assert {p.split(".")[0] for p in declared} == set(settings()) - {"gates"}


def definitions() -> set[str]:
    """Names of all functions, classes and constants of the package and the stages."""
    found = set()
    for file in (*PACKAGE.rglob("*.py"), *STAGES.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found


def test_the_map_names_what_there_is() -> None:
    """Rooms, files, functions and tests in ARCHITECTURE.md."""
    text = (WORKSPACE.root / "ARCHITECTURE.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == ROOMS
    files = set(re.findall(r"[a-z_]\w*(?:/\w+)+(?:\.\w+)?|\b\w+\.(?:yaml|py)\b", text))
    assert len(files) > 30
    for name in files:
        places = (WORKSPACE.root / name, PACKAGE / name)
        assert any(place.exists() for place in places) or name == "models/mlp", name
    stages = {file.stem for file in STAGES.glob("*.py")}
    known = {"refashion", *definitions(), *ROOMS, *stages, *params.Params.model_fields}
    for name in re.findall(r"`([A-Za-z_]\w*(?:\.[a-z]\w*)?)`", text):
        if Path(name).suffix not in (".json", ".csv", ".yaml"):
            assert set(name.split(".")) <= known, name
