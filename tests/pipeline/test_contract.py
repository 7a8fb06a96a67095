"""The pipeline contract: stages are pure, what they declare is complete, results are canonical."""

import json
import shutil
from importlib.util import source_from_cache
from pathlib import PurePosixPath

import pytest
import yaml

from refashion.base.machine import HOST

VOLATILE = ("build/", "logs/", ".dvc/", ".git/")
PUBLISHED = ("dvc.yaml", "dvc.lock", "mlflow.db", "mlflow-artifacts/")  # by track, as they are


def declared(spec: dict, key: str, item: str) -> set[str]:
    """Deps and outs of a stage, for one entry of its foreach."""
    entries = [entry for kind in ("deps", "outs", "metrics") for entry in spec.get(kind, [])]
    names = (entry if isinstance(entry, str) else next(iter(entry)) for entry in entries)
    return {name.replace("${key}", key).replace("${item}", item) for name in names}


def source(name: str) -> str:
    """The file that was meant: of a compiled one its source, of a temporary one its target."""
    path = PurePosixPath(name)
    if path.suffix == ".pyc" or ".pyc." in path.name:
        return source_from_cache(name[: name.index(".pyc") + 4])
    if path.suffix == ".tmp" and path.name.startswith("."):
        return str(path.with_name(path.name[1:].partition(f".{HOST}.")[0]))
    return name


def stages(workspace) -> dict[str, set[str]]:
    """What every stage declares, by its name in the audit: train-mlp, ..."""
    found = {}
    specs = {}
    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    for file in (workspace.root / "dvc.yaml", *workspace.root.glob("stages/*/dvc.yaml")):
        specs |= yaml.safe_load(file.read_text())["stages"]
    for name, spec in specs.items():
        entries = spec.get("foreach", {"": ""})
        if isinstance(entries, str):  # ${variants}
            entries = dict.fromkeys(params[entries.strip("${}")], "")
        for key, item in entries.items():
            full = f"{name}-{key}" if key else name
            found[full] = declared(spec.get("do", spec), key, item)
    return found


def test_declared_is_complete(workspace) -> None:
    log = workspace.root.parent / "audit"
    seen, declarations = set(), stages(workspace)
    for file in log.glob("*.json"):
        stage = file.name.partition(".")[0]
        allowed = declarations[stage]
        seen.add(stage)
        for name in json.loads(file.read_text()):
            meant = source(name)
            volatile = f"{meant}/".startswith(VOLATILE) or meant == "params.yaml"
            published = stage.startswith("track") and meant.startswith(PUBLISHED)
            # A folder is opened to make sure that what was written in it is on the disk.
            covered = any(
                f"{meant}/".startswith(f"{a}/") or a.startswith(f"{meant}/") for a in allowed
            )
            assert volatile or published or covered, f"{stage} opens {meant}, undeclared"
    assert seen == set(declarations)


def test_audit_can_see(workspace) -> None:
    """The test above reads something: train opens its split, evaluate the test images."""
    log = workspace.root.parent / "audit"
    for stage, name in (
        ("train-mlp", "data/prepared/train/images.npy"),
        ("evaluate-mlp", "data/prepared/test/images.npy"),
        ("preprocess", "data/raw/train-images-idx3-ubyte.gz"),
    ):
        opened = [n for f in log.glob(f"{stage}.*.json") for n in json.loads(f.read_text())]
        assert name in opened
        assert any(n.startswith("src/refashion/") for n in opened)


def test_second_run_does_nothing(workspace) -> None:
    for command in (("repro",), ("repro", "study@weight_decay"), ("status",)):
        assert "up to date" in workspace.run("dvc", *command)
    assert workspace.run("git", "status", "--porcelain") == ""


@pytest.mark.ci
def test_remote_brings_everything_back(workspace, tmp_path) -> None:
    workspace.run("dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path))
    workspace.run("dvc", "push")
    shutil.rmtree(workspace.root / "models/mlp")
    shutil.rmtree(workspace.root / ".dvc/cache")
    workspace.run("git", "checkout", "--quiet", "models")
    workspace.run("dvc", "pull")
    workspace.run("dvc", "remote", "remove", "--local", "storage")
    assert (workspace.root / "models/mlp/weights.safetensors").exists()
    assert "up to date" in workspace.run("dvc", "status")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=-1", "lr is -1; it must be a number > 0, or empty"),
        ("variants.x; touch pwned={hidden: []}", "variants: 'x; touch pwned' is no legal name"),
        ("variants.$(touch pwned)={hidden: []}", "variants: '$(touch pwned)' is no legal name"),
    ],
)
def test_bad_setting_is_one_line_and_costs_nothing(workspace, setting: str, message: str) -> None:
    """It is refused before DVC removes a result, and no text of it reaches a shell."""
    key, _, value = setting.partition("=")
    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    parent = params["variants"] if key.startswith("variants.") else params
    parent[key.removeprefix("variants.")] = yaml.safe_load(value)
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        printed = workspace.run("dvc", "repro", code=255)
        assert f"error: params.yaml: {message}" in printed
        assert "Traceback" not in printed
        changed = workspace.run("git", "status", "--porcelain")
        assert changed.split() == ["M", "params.yaml"]
        assert not list(workspace.root.rglob("pwned"))
    finally:
        workspace.run("git", "checkout", "--quiet", "params.yaml")
        workspace.run("dvc", "checkout", "--quiet")
