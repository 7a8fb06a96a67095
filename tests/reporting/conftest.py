"""Workspaces with results, and a database that holds them as runs."""

import runpy
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from safetensors.torch import load_file

from refashion.base import files, params, paths
from refashion.tracking import contents, publish, store
from refashion.tracking.context import Context
from refashion.tracking.results import Results
from refashion.training import digest
from refashion.training.record import run_key

WRONG = {1: 12, 2: 18}
"""Mistakes of the mlp with seeds 1 and 2; with seed 0 it makes 9, of 60 images."""


@pytest.fixture(scope="session")
def made_up() -> SimpleNamespace:
    """Give the functions of made_up.py."""
    file = Path(__file__).parents[1] / "tracking" / "made_up.py"
    return SimpleNamespace(**runpy.run_path(str(file)))


@pytest.fixture(scope="session")
def roots(tmp_path_factory: pytest.TempPathFactory, made_up: SimpleNamespace) -> dict[str, Path]:
    """Give workspaces by what sets them apart, to be read and not changed."""
    found = {}
    for name, changes, outcome in (
        ("main", {}, ""),
        ("seed 1", {"seed": 1}, ""),
        ("seed 2", {"seed": 2}, ""),
        ("lr 0.2", {"lr": 0.2}, ""),
        ("diverged", {}, "another"),
        ("mnist", {"data": {"dataset": "mnist"}}, ""),
    ):
        root = found[name] = tmp_path_factory.mktemp("workspace")
        raw = yaml.safe_load(paths.PARAMS.read_text())
        raw |= changes | {"data": raw["data"] | changes.get("data", {})}
        (root / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        made_up.write_results(root, mlp=outcome)
        for variant in raw["variants"]:
            make_consistent(Results(root=root, variant=variant))
        if raw["seed"]:
            made_up.write_evaluation(root, "mlp", wrong=WRONG[raw["seed"]])
    return found


def make_consistent(results: Results) -> None:
    """Put the true digests into a made-up record."""
    record = results.record
    history = results.file(paths.history(results.variant)).read_bytes()
    weights = digest.weights(load_file(results.file(paths.weights(results.variant))))
    record["outputs"] = {"history": sha256(history).hexdigest(), "weights": weights}
    record["run_key"] = run_key({k: record[k] for k in ("contract", "inputs", "params", "variant")})
    files.write_json(results.file(paths.record(results.variant)), record)


@pytest.fixture(scope="session")
def published(
    tmp_path_factory: pytest.TempPathFactory, roots: dict[str, Path]
) -> tuple[Path, dict[str, str]]:
    """Give a folder with a database, and the ids of its runs, by workspace and variant."""
    folder, ids = tmp_path_factory.mktemp("published"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MAIN_ROOT", folder)
        patch.setattr(contents, "draw", lambda *_: None)
        with store.connect() as found:
            for name, root in roots.items():
                exp = "puffy-hake" if name.startswith("seed") else None
                context = Context(
                    commit=None, diff=b"", experiment=exp, baseline=None, environment=""
                )
                whole = name in ("main", "mnist")
                for variant in params.load(root / "params.yaml").variants if whole else ["mlp"]:
                    results = Results(root=root, variant=variant)
                    done = publish.publish(results, context, found)
                    ids[f"{name} {variant}"] = done.run_id
    (old,) = folder.glob(f"mlflow-artifacts/*/{ids['seed 2 mlp']}/artifacts/params.yaml")
    old.write_text("key_of_another_version: 1\n")
    return folder, ids


@pytest.fixture
def images(roots: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the images that the made-up results are about this checkout's."""
    monkeypatch.setattr(paths, "TEST", roots["main"] / "data/prepared/test")


@pytest.fixture
def ids(published: tuple[Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give the ids of the runs in the user's own database."""
    folder, ids = published
    monkeypatch.setattr(paths, "MAIN_ROOT", folder)
    return ids
