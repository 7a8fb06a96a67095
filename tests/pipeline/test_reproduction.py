"""Runs of the real pipeline made again; every other way to ask is in tests/reproduction."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

from refashion import cli
from refashion.base.workspace import Workspace
from refashion.reproduction import gate


@pytest.fixture
def client(workspace: Any) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")


@pytest.fixture
def restored(workspace: Any) -> Any:
    """The workspace, put back afterwards."""
    yield workspace
    workspace.run("git", "checkout", "--quiet", "--", ".")
    workspace.run("git", "clean", "--quiet", "--force", "-d", "models", "reports")
    workspace.run("dvc", "checkout", "--quiet", "--force")


def refashion(workspace: Any, *arguments: str, code: int = 0) -> str:
    """Run the command on the workspace; what it answered, once its exit code is as expected."""
    done = CliRunner().invoke(cli.main, arguments, obj=Workspace(workspace.root))
    assert done.exit_code == code, done.output
    return done.stdout


def runs(client: MlflowClient, name: str = "") -> list[Run]:
    ids = [e.experiment_id for e in client.search_experiments()]
    return [run for run in client.search_runs(ids) if name in ("", run.data.tags["name"])]


def committed_run(workspace: Any, client: MlflowClient, name: str) -> Run:
    """The run of the results that the workspace has committed."""
    record = json.loads(workspace.run("git", "show", f"HEAD:models/{name}/record.json"))
    (run,) = [r for r in runs(client, name) if r.data.tags["run_key"] == record["run_key"]]
    return run


def state(workspace: Any) -> list[str]:
    """What git says of the workspace, Python's own caches aside."""
    lines = workspace.run("git", "status", "--porcelain", "--ignored").splitlines()
    return [line for line in lines if "__pycache__" not in line]


def experiments(workspace: Any) -> set[str]:
    """Names of DVC's experiments."""
    names = workspace.run("git", "for-each-ref", "refs/exps", "--format=%(refname)").split()
    return {name.rpartition("/")[2] for name in names if len(name.split("/")) == 5}


def test_a_run_by_its_id(workspace: Any, client: MlflowClient) -> None:
    run = committed_run(workspace, client, "mlp")
    before = state(workspace)
    (attestation,) = json.loads(refashion(workspace, "reproduce", run.info.run_id[:8], "--json"))
    assert attestation["verdict"]["outcome"] == "identical" and not attestation["verdict"]["note"]
    assert attestation["actual"] == attestation["expected"]
    assert attestation["environment"] == {} and attestation["seconds"] > 0
    assert "torch" in client.get_run(run.info.run_id).data.tags["reproduced_on"]
    assert state(workspace) == before
    assert workspace.run("git", "worktree", "list").count("\n") == 1


@pytest.mark.ci
def test_a_run_of_a_pipeline_of_its_own(workspace: Any, client: MlflowClient) -> None:
    names = [run.data.tags["name"] for run in runs(client)]
    name = sorted(name for name in names if name.startswith("k_fold/softmax"))[-1]
    (run,) = runs(client, name)
    answer = refashion(workspace, "reproduce", run.info.run_id)
    assert answer.startswith(f"{name} (run {run.info.run_id}, ")
    assert answer.endswith("): identical\n")


@pytest.mark.ci
def test_an_experiment_with_its_changes(restored: Any) -> None:
    """Code and a setting changed, nothing committed; then the workspace moves on."""
    code = restored.root / "stages/evaluate.py"
    code.write_text(code.read_text() + "\n\nCHANGED = True\n")
    restored.run("dvc", "exp", "run", "--name", "dirty", "-S", "variants.softmax.lr=0.03")
    restored.run("git", "checkout", "--quiet", "--", ".")
    answer = refashion(restored, "reproduce", "dirty", "--name", "softmax")
    assert answer.startswith("softmax (run ") and answer.endswith("): identical\n")


@pytest.mark.ci
def test_the_gate_sees_one_bit_of_a_weight(restored: Any) -> None:
    """That it holds for good results is what the project's own CI shows, on the real data."""
    weights = restored.root / "models/mlp/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    name = "lowest instruction set"
    checks = gate.gate(Workspace(restored.root), "HEAD", {name: gate.PERTURBED[name]})
    details = {check.name: check.detail for check in checks if not check.holds}
    assert "train@mlp" in details["fresh"]
    detail = details[f"reproduces: {name}"]
    assert detail.startswith("mlp: different: first at stage train, tensor layers.")
    assert ";" not in detail


@pytest.mark.ci
def test_a_database_built_anew(
    workspace: Any, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With experiments that the other tests have left: of all variants, a sweep, changed code."""
    for name in experiments(workspace) - {"one-number", "found", "dirty"}:
        workspace.run("dvc", "exp", "remove", name)
    before = {run.data.tags["run_key"]: run.data.tags["weights_sha256"] for run in runs(client)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/anew.db")
    rows = json.loads(refashion(workspace, "publish", "--json"))
    assert {row["outcome"] for row in rows} <= {"published", "already there"}
    anew = MlflowClient(f"sqlite:///{tmp_path}/anew.db")
    after = {run.data.tags["run_key"]: run.data.tags["weights_sha256"] for run in runs(anew)}
    assert after and after.items() <= before.items()
    assert {row["source"] for row in rows} == {"workspace"} | experiments(workspace)
    again = json.loads(refashion(workspace, "publish", "--json"))
    assert {row["outcome"] for row in again} == {"already there"}
    assert len(runs(anew)) == len(after)
