"""The pipeline contract: stages are pure, what they declare is complete, results are canonical."""

import json
import shutil
from importlib.util import source_from_cache
from pathlib import PurePosixPath

import pytest
import yaml

VOLATILE = ("logs/", ".dvc/", ".git/")
PUBLISHED = ("dvc.yaml", "dvc.lock", "mlflow.db", "mlflow-artifacts/")  # by track, as they are


def declared(stage: str, spec: dict) -> set[str]:
    """Deps and outs of a stage, with its variant filled in."""
    _, _, variant = stage.partition("-")
    found = set()
    for kind in ("deps", "outs", "metrics", "plots"):
        for entry in spec.get(kind, []):
            name = entry if isinstance(entry, str) else next(iter(entry))
            found.add(name.replace("${key}", variant))
    return found


def source(name: str) -> str:
    """The file that was meant: of a compiled one its source, of a temporary one its target."""
    path = PurePosixPath(name)
    if path.suffix == ".pyc" or ".pyc." in path.name:
        return source_from_cache(name[: name.index(".pyc") + 4])
    if path.suffix == ".tmp" and path.name.startswith("."):
        return str(path.with_name(path.name[1:].rsplit(".", 2)[0]))
    return name


def stages(workspace) -> dict[str, dict]:
    """Every stage by its name in the audit: train-mlp, ..."""
    found = {}
    specs = {}
    for file in (workspace.root / "dvc.yaml", workspace.root / "stages/k_fold/dvc.yaml"):
        specs |= yaml.safe_load(file.read_text())["stages"]
    for name, spec in specs.items():
        if "foreach" in spec:
            found |= {f"{name}-{variant}": spec["do"] for variant in workspace.models}
        else:
            found[name] = spec
    return found


def test_declared_is_complete(workspace) -> None:
    log = workspace.root.parent / "audit"
    seen = set()
    for file in log.glob("*.json"):
        stage = file.name.partition(".")[0]
        spec = stages(workspace)[stage]
        allowed = declared(stage, spec)
        seen.add(stage)
        for name in json.loads(file.read_text()):
            meant = source(name)
            volatile = meant.startswith(VOLATILE) or meant == "params.yaml"
            published = stage.startswith("track") and meant.startswith(PUBLISHED)
            covered = any(meant == a or meant.startswith(f"{a}/") for a in allowed)
            assert volatile or published or covered, f"{stage} opens {meant}, undeclared"
    assert seen == set(stages(workspace))


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
    assert "up to date" in workspace.run("dvc", "repro")
    assert "up to date" in workspace.run("dvc", "status")
    assert workspace.run("git", "status", "--porcelain") == ""


def test_forced_run_gives_the_same_bytes(workspace) -> None:
    workspace.run("dvc", "repro", "--force", "--no-run-cache", "compare")
    assert workspace.run("git", "status", "--porcelain") == ""


def test_remote_brings_everything_back(workspace, tmp_path) -> None:
    workspace.run("dvc", "remote", "add", "--local", "-d", "storage", str(tmp_path))
    workspace.run("dvc", "push")
    shutil.rmtree(workspace.root / "models/mlp")
    shutil.rmtree(workspace.root / ".dvc/cache")
    workspace.run("git", "checkout", "--quiet", "models")
    workspace.run("dvc", "pull")
    assert (workspace.root / "models/mlp/weights.safetensors").exists()
    assert "up to date" in workspace.run("dvc", "status")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("lr=-1", "lr is -1; it must be a number > 0, or empty"),
        ("+lrr=0.1", "lrr: unknown key; did you mean lr?"),
    ],
)
def test_bad_setting_is_one_line(workspace, setting: str, message: str) -> None:
    printed = workspace.run("dvc", "exp", "run", "--temp", "-S", setting, code=255)
    assert f"error: params.yaml: {message}" in printed
    assert "Traceback" not in printed
