"""The `refashion` command on the real pipeline: reproduce, verify, diverge, gate, publish."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run


@pytest.fixture
def refashion(workspace) -> Callable[..., str]:
    """Run the command as installed in the workspace."""

    def run(*arguments: str, code: int = 0) -> str:
        source = f"PYTHONPATH={workspace.root / 'src'}"
        return workspace.run(
            "env", source, sys.executable, "-m", "refashion.cli", *arguments, code=code
        )

    return run


@pytest.fixture
def client(workspace) -> MlflowClient:
    return MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")


@pytest.fixture
def restored(workspace):
    """The workspace, put back afterwards."""
    yield workspace
    workspace.run("git", "checkout", "--quiet", "--", ".")
    workspace.run("git", "clean", "--quiet", "--force", "-d", "models", "reports")
    workspace.run("dvc", "checkout", "--quiet", "--force")


def runs(client: MlflowClient, variant: str = "") -> list[Run]:
    ids = [e.experiment_id for e in client.search_experiments()]
    return [run for run in client.search_runs(ids) if variant in run.data.tags["variant"]]


def committed_run(workspace, client: MlflowClient, variant: str) -> Run:
    """The run of the results that the workspace has committed."""
    record = json.loads(workspace.run("git", "show", f"HEAD:models/{variant}/record.json"))
    (run,) = [r for r in runs(client, variant) if r.data.tags["run_key"] == record["run_key"]]
    return run


def state(workspace) -> list[str]:
    """What git says of the workspace, Python's own caches aside."""
    lines = workspace.run("git", "status", "--porcelain", "--ignored").splitlines()
    return [line for line in lines if "__pycache__" not in line]


def tail(printed: str) -> object:
    """The JSON at the end of what was printed, after the stages' own lines."""
    start = re.search(r"^[\[{]$", printed, re.MULTILINE)
    assert start, printed
    return json.loads(printed[start.start() :])


def test_a_run_by_its_id(workspace, refashion, client) -> None:
    run = committed_run(workspace, client, "mlp")
    status = state(workspace)
    (found,) = tail(refashion("reproduce", run.info.run_id[:8], "--json"))
    assert found["verdict"]["outcome"] == "identical"
    assert found["found"] == found["expected"]
    assert found["run_key"] == run.data.tags["run_key"]
    tags = client.get_run(run.info.run_id).data.tags
    assert (tags["reproduced"], tags["reproduced_at"]) == ("identical", found["at"])
    assert "torch" in tags["reproduced_on"]
    (attestation,) = client.list_artifacts(run.info.run_id, "attestations")
    file = Path(client.download_artifacts(run.info.run_id, attestation.path))
    assert json.loads(file.read_text()) == found
    assert state(workspace) == status
    assert workspace.run("git", "worktree", "list").count("\n") == 1


@pytest.mark.parametrize("variant", ["house_prices/mlp", "k_fold/softmax.fold_2"])
def test_an_arm_of_a_study(workspace, refashion, client, variant: str) -> None:
    (run,) = [r for r in runs(client, variant) if r.data.tags["variant"] == variant]
    (found,) = tail(refashion("reproduce", run.info.run_id, "--json"))
    assert found["verdict"]["variant"] == variant
    assert found["verdict"]["outcome"] == "identical"
    assert found["run_key"] == run.data.tags["run_key"]
    assert client.get_run(run.info.run_id).data.tags["reproduced"] == "identical"


def test_an_experiment_with_its_changes(restored, refashion, client) -> None:
    """Code and a setting changed, nothing committed; then the workspace moves on."""
    initial = restored.root / "src/refashion/training/initial.py"
    changed = initial.read_text().replace("def weights(", "CHANGED = True\n\n\ndef weights(", 1)
    initial.write_text(changed)
    restored.run("dvc", "exp", "run", "--name", "dirty", "-S", "variants.softmax.lr=0.03")
    restored.run("git", "checkout", "--quiet", "--", ".")
    printed = refashion("reproduce", "dirty", "--variant", "softmax")
    assert "softmax (run" in printed and printed.strip().endswith("identical")
    assert "didn't change, skipping" not in printed.partition("preprocess")[2]

    parted = tail(refashion("diverge", "HEAD", "dirty", "--variant", "softmax", "--json", code=1))
    assert parted["epoch"] == 1 and not parted["same_outputs"]
    assert parted["params"] == {"lr": [0.02, 0.03]}
    assert parted["data"] == {}
    assert parted["code"] == ["src/refashion/training/initial.py"]

    printed = refashion("reproduce", "dirty", "--variant", "wide", code=2)
    assert "has no variant 'wide'" in printed


def test_data_that_no_source_has(restored, refashion) -> None:
    """A commit that asks for other images, where nothing can be downloaded."""
    params = restored.root / "params.yaml"
    params.write_text(params.read_text().replace("dataset: digits", "dataset: kmnist"))
    restored.run("git", "commit", "--quiet", "--all", "--message", "Ask for other images")
    dead = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    restored.environment.update(dead)
    try:
        printed = refashion("reproduce", "HEAD", "--variant", "softmax", code=2)
    finally:
        for name in dead:
            del restored.environment[name]
        restored.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    assert "error: kmnist: no source has its files" in printed


def test_interrupted(workspace) -> None:
    """Ctrl-C while the stages run: the checkout goes, nothing else does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "refashion.cli", "reproduce", "HEAD"],
        cwd=workspace.root,
        env={**os.environ, **workspace.environment, "PYTHONPATH": str(workspace.root / "src")},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Shells make what they start in the background deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr
    for line in process.stderr:
        if "Running stage" in line:
            break
    assert workspace.run("git", "worktree", "list").count("\n") == 2
    os.killpg(process.pid, signal.SIGINT)
    printed = process.stderr.read()
    assert process.wait() == 130, printed
    assert printed.endswith("interrupted\n")
    assert workspace.run("git", "worktree", "list").count("\n") == 1


def test_what_cannot_be_brought_back(workspace, refashion, client) -> None:
    run = committed_run(workspace, client, "softmax")
    assert "no run, experiment or revision" in refashion("reproduce", "nothing", code=2)
    tags = run.data.tags
    try:
        client.set_tag(run.info.run_id, "git_commit", "0" * 40)
        printed = refashion("reproduce", run.info.run_id, code=2)
        assert "is not in this repository" in printed
    finally:
        client.set_tag(run.info.run_id, "git_commit", tags["git_commit"])

    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    weights = folder / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        printed = refashion("reproduce", run.info.run_id, code=2)
    finally:
        weights.write_bytes(content)
    assert "weights.safetensors was altered" in printed
    assert printed.count("\n") == 1

    diff = b"diff --git a/params.yaml b/params.yaml\n--- a/params.yaml\n+++ b/params.yaml\n"
    hunk = b"@@ -1 +1 @@\n-nothing like it\n+something\n"
    (folder / "uncommitted.diff").write_bytes(diff + hunk)
    client.set_tag(run.info.run_id, "git_dirty", "true")
    try:
        printed = refashion("reproduce", run.info.run_id, code=2)
    finally:
        client.set_tag(run.info.run_id, "git_dirty", "false")
    assert "uncommitted changes" in printed and "do not apply" in printed


def test_a_commit_that_promises_what_does_not_come_out(restored, refashion) -> None:
    """A lock with another digest, committed."""
    lock = restored.root / "dvc.lock"
    weights = yaml.safe_load(lock.read_text())["stages"]["train@softmax"]["outs"]
    digest = next(out["md5"] for out in weights if out["path"].endswith(".safetensors"))
    lock.write_text(lock.read_text().replace(digest, "0" * 32))
    restored.run("git", "commit", "--quiet", "--all", "--message", "Promise something else")
    try:
        found = tail(refashion("verify", "--json", code=1))
    finally:
        restored.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    identical = {o["path"]: o["identical"] for o in found["outputs"]}
    assert {"data/raw", "data/prepared/train", "reports/comparison.json"} <= set(identical)
    assert [path for path in identical if not identical[path]] == [
        "models/softmax/weights.safetensors"
    ]


def write_gates(workspace, **gates: dict) -> None:
    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({**params, "gates": gates}))


def test_the_gate_names_all_that_does_not_hold(restored, refashion, tmp_path) -> None:
    """That it holds for good results is what the project's own CI shows, on the real data."""
    weights = restored.root / "models/mlp/weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.unlink()
    weights.write_bytes(content)
    write_gates(
        restored,
        softmax={"accuracy": {"at_least": 0.999}, "nonsense": {"at_most": 1.0}},
        mlp={"accuracy": {"at_least": 0.1}},
    )
    restored.environment["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    try:
        printed = refashion("gate", "--baseline", "HEAD", code=1)
    finally:
        del restored.environment["GITHUB_STEP_SUMMARY"]
    summary = (tmp_path / "summary.md").read_text()
    assert "## Gate: does not hold" in summary and summary in printed
    rows = [line.split(" | ") for line in summary.splitlines() if line.startswith("| ")][1:]
    held = {row[0].removeprefix("| "): (row[1] == "yes", row[2]) for row in rows}
    assert {name for name, (holds, _) in held.items() if holds} == {
        "mlp: accuracy",
        *(f"{variant}: no worse than HEAD" for variant in restored.models),
    }
    assert "train@mlp" in held["fresh"][1]
    for name in ("one thread", "lowest instruction set"):
        told = held[f"reproduces: {name}"][1]
        assert "mlp: different: first at stage train, tensor layers." in told
        assert "softmax" not in told
    assert "asked >= 0.999" in held["softmax: accuracy"][1]
    assert held["softmax: nonsense"][1].startswith("missing")


def test_a_database_built_anew(workspace, refashion, client) -> None:
    """With every experiment that the other tests have left."""
    before = {run.data.tags["run_key"]: run.data.tags["result"] for run in runs(client)}
    database = workspace.root / "mlflow.db"
    kept = shutil.move(database, database.with_suffix(".kept"))
    try:
        rows = json.loads(refashion("publish", "--json"))
        assert {row["outcome"] for row in rows} <= {"published", "already there"}
        found = MlflowClient(f"sqlite:///{database}")
        after = {run.data.tags["run_key"]: run.data.tags["result"] for run in runs(found)}
        assert after and after.items() <= before.items()
        names = workspace.run("git", "for-each-ref", "refs/exps", "--format=%(refname)").split()
        assert {row["source"] for row in rows} == {"workspace"} | {
            name.rpartition("/")[2] for name in names if len(name.split("/")) == 5
        }
        again = json.loads(refashion("publish", "--json"))
        assert {row["outcome"] for row in again} == {"already there"}
        assert len(runs(found)) == len(after)
    finally:
        shutil.move(kept, database)
