"""Runs made again, verified, compared and gated, in a repository whose pipeline takes a second."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.config import Config
from pydantic import Field

from publishing import CONTEXT, tell
from refashion.base import files, params
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import (
    diverge,
    gate,
    lockfile,
    pipeline,
    reproduce,
    revisions,
    worktree,
)
from refashion.reproduction.worktree import State
from refashion.runs.run import in_folder
from refashion.tracking import context, integrity, marks, published, store
from synthetic import TIMINGS, write_variant, write_workspace

# --- reproduce --------------------------------------------------------------------------------


def refuse(*_: object) -> None:
    raise OSError("no database")


def test_a_run_outlives_a_setting_that_is_required_later(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its id and as a revision, although this code refuses its params.yaml.

    The verdict is told though it cannot be written.
    """
    before = repository.git("rev-parse", "HEAD")
    repository.change(horizon=3)
    repository.commit("Require a setting")

    class Later(params.Params):
        horizon: int = Field(description="an integer")

    monkeypatch.setattr(params, "Params", Later)
    old = tmp_path / "params.yaml"
    old.write_text(repository.git("show", f"{before}:params.yaml"))
    with pytest.raises(UserError, match="horizon"):
        params.load(old)
    run = repository.published("mlp")
    done = repository.refashion("reproduce", run.info.run_id[:8], "--json")
    assert done.exit_code == 0, done.output
    (attestation,) = json.loads(done.stdout)
    assert attestation["verdict"]["outcome"] == "identical"
    assert attestation["actual"] == attestation["expected"] != {}
    assert (attestation["commit"], attestation["run_key"]) == (before, run.data.tags["run_key"])
    tags = repository.client.get_run(run.info.run_id).data.tags
    assert (tags["reproduced"], tags["reproduced_at"]) == ("identical", attestation["at"])
    (file,) = repository.client.list_artifacts(run.info.run_id, "attestations")
    text = Path(repository.client.download_artifacts(run.info.run_id, file.path)).read_text()
    assert json.loads(text) == attestation

    monkeypatch.setattr(reproduce, "publish", refuse)
    done = repository.refashion("reproduce", before, "--name", "sweep/first")
    assert done.stdout == f"sweep/first (commit, {before[:12]}): identical\n"
    assert (done.exit_code, done.stderr) == (0, "warning: not written to MLflow: no database\n")
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("worktree", "list").count("\n") == 0


@pytest.mark.ci
def test_a_run_of_an_older_layout_names_its_commit(repository: Any) -> None:
    """As a revision, as a run and among experiments, where it does not stop the others."""
    root = repository.workspace.root
    (root / "link").symlink_to("/etc/passwd")
    repository.experiment("beyond")
    (root / "README.md").touch()
    repository.experiment("sound")
    record = {"variant": "mlp", "run_key": "0" * 64, "params": {}, "inputs": {}, "outputs": {}}
    files.write_json(repository.workspace.models / "mlp" / "record.json", record)
    commit = repository.experiment("old-habit")
    tags = {"name": "mlp", integrity.PUBLISHED: "complete", "commit": commit, "dirty": "false"}
    run = repository.client.create_run("1", tags=tags, run_name="mlp")
    repository.client.log_text(run.info.run_id, json.dumps(record), "record.json")
    cure = f"`git worktree add ../{commit[:12]} {commit}`"
    for text in (commit, run.info.run_id):
        assert cure in repository.refused("reproduce", text, "--name", "mlp")
    assert cure in repository.refused("reproduce", "old-habit")
    done = repository.refashion("publish", "--json")
    rows = json.loads(done.stdout)
    assert [(row["source"], row["outcome"]) for row in rows] == [
        *[("workspace", "already there")] * 3,
        *[("beyond", "missing"), ("old-habit", "missing")],
        *[("sound", "already there")] * 3,
    ]
    assert "link: is a link to" in rows[3]["detail"] and cure in rows[4]["detail"]
    assert done.exit_code == 1


@pytest.mark.ci
def test_what_cannot_be_brought_back(repository: Any) -> None:
    assert "no run, experiment or revision" in repository.refused("reproduce", "nothing")
    no_wide = repository.refused("reproduce", "main", "--name", "wide")
    assert "there are softmax, mlp, sweep/first" in no_wide
    diff = (
        b"diff --git a/params.yaml b/params.yaml\n--- a/params.yaml\n+++ b/params.yaml\n"
        b"@@ -1 +1 @@\n-nothing like it\n+something\n"
    )
    head = repository.git("rev-parse", "HEAD")
    for commit, changes, told in (
        (head, diff, "do not apply to its commit"),
        ("0" * 40, b"", "is not in this repository; fetch it"),
        (None, b"", "was made outside git"),
    ):
        repository.client.delete_run(repository.published("mlp").info.run_id)
        (done,) = tell(
            repository.workspace, "mlp", context=replace(CONTEXT, commit=commit, diff=changes)
        )
        assert told in repository.refused("reproduce", done.run_id)
    repository.git("rm", "--quiet", "-r", "models", "reports")
    commit = repository.commit("Nothing made")
    assert "record.json is missing" in repository.refused("reproduce", commit, "--name", "mlp")


def test_a_checkout_has_the_remotes_and_the_cache_of_the_users_own(repository: Any) -> None:
    workspace = repository.workspace
    local = workspace.root / ".dvc" / "config.local"
    text = "['remote \"mine\"']\n    url = /mine\n['remote \"team\"']\n    url = ../../täm\n"
    local.write_text(text, encoding="utf-8")
    state = worktree.State(commit=repository.git("rev-parse", "HEAD"))
    with worktree.checkout(state, workspace) as checkout:
        config = (checkout.root / ".dvc" / "config.local").read_text(encoding="utf-8")
        remotes = Config(str(checkout.root / ".dvc"))["remote"]
    assert f'dir = "{workspace.root / ".dvc" / "cache"}"' in config
    assert {name: remote["url"] for name, remote in remotes.items()} == {
        "mine": "/mine",
        "team": str(workspace.root.parent / "täm"),
    }
    assert local.read_text(encoding="utf-8") == text


def test_data_that_no_source_has(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(repository.workspace.root / ".dvc" / "cache")
    monkeypatch.setenv("OFFLINE", "1")
    assert repository.refused("verify") == "error: digits: no source has its files\n"


def test_interrupted(repository: Any) -> None:
    """Ctrl-C while the stages run: the checkout goes, nothing else does."""
    code = (
        "from pathlib import Path; from refashion import cli; from refashion.base import workspace;"
        "cli.main(['verify'], obj=workspace.Workspace(Path.cwd()))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=repository.workspace.root,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "Running stage" in line:
            break
    assert repository.git("worktree", "list").count("\n") == 1, lines
    os.killpg(process.pid, signal.SIGINT)
    printed = process.stderr.read()
    assert process.wait() == 130, printed
    assert printed.endswith("interrupted\n")
    assert repository.git("worktree", "list").count("\n") == 0


@pytest.mark.parametrize("end", ["os._exit(130)", "os.kill(os.getpid(), 15)"])
def test_a_program_that_was_interrupted(tmp_path: Path, end: str) -> None:
    """Though this process was not."""
    with pytest.raises(KeyboardInterrupt):
        pipeline.run([sys.executable, "-c", f"import os; {end}"], tmp_path, {})


# --- diverge ----------------------------------------------------------------------------------


@pytest.mark.ci
def test_uncommitted_changes_belong_to_a_run(repository: Any) -> None:
    """Code and a setting changed, nothing committed; then the workspace moves on."""
    code, head = (
        repository.workspace.root / "stages" / "make.py",
        repository.git("rev-parse", "HEAD"),
    )
    code.write_text(f"{code.read_text()}# changed\n")
    repository.change(variants={"softmax": {"hidden": [], "lr": 0.05}})
    repository.dvc("repro")
    done = repository.refashion("publish", "softmax", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["source"], row["outcome"]) == ("workspace", "published")
    repository.experiment("puffy-hake")
    repository.dvc("checkout")
    dirty = repository.published("softmax").info.run_id
    rows = json.loads(repository.refashion("publish", "--json").stdout)
    of_experiment = [row["outcome"] for row in rows if row["source"] == "puffy-hake"]
    assert of_experiment == ["already there"] * 2
    with store.connect(repository.workspace, reading=True) as connected:
        (named,) = published.find("puffy-hake", connected)  # the study came out the same
    assert named.info.run_id == dirty
    assert named.info.run_name == "softmax lr=0.05"

    done = repository.refashion("reproduce", dirty)
    assert (done.exit_code, done.stdout.endswith("): identical\n")) == (0, True), done.output

    done = repository.refashion("diverge", "HEAD", dirty, "--name", "softmax", "--json")
    difference = json.loads(done.stdout)
    first, second, _, _, *last = diverge.lines(difference)
    assert (done.exit_code, difference.pop("same_outputs")) == (1, False)
    assert {"weights", "history.csv"} == set(difference.pop("outputs"))
    assert difference == {
        **{"epoch": 1, "params": {"lr": [0.1, 0.05]}, "data": {}, "code": ["stages/make.py"]},
        **{"hardware": None, "packages": None},  # git knows nothing of them
    }
    assert (first, second) == ("diverged in epoch 1", "  params lr: 0.1 | 0.05")
    assert last == ["  hardware: unknown", "  packages: unknown", "  code: stages/make.py"]

    repository.git("update-ref", "-d", f"refs/exps/{head[:2]}/{head[2:]}/puffy-hake")
    for lines in ([f"puffy-hake: removed: softmax, run {dirty}"], []):  # told once
        done = repository.refashion("publish")
        assert done.exit_code == 0
        assert [line for line in done.stdout.splitlines() if "removed" in line] == lines
    tags = repository.client.get_run(dirty).data.tags
    assert (tags["dvc_exp"], tags["dvc_exp_removed"]) == ("", "puffy-hake")
    assert "no run, experiment or revision" in repository.refused("reproduce", "puffy-hake")


def test_records_on_their_own(repository: Any) -> None:
    record = str(repository.workspace.models / "mlp" / "record.json")
    done = repository.refashion("diverge", record, record)
    unknown = [f"  {part}: unknown" for part in ("hardware", "packages", "code")]
    assert (done.exit_code, done.stdout.splitlines()) == (0, ["same history", *unknown])
    other = repository.refused("diverge", record, str(repository.workspace.params_file))
    assert "params.yaml: is no record; name a record.json" in other
    for name in ("mlp", "softmax"):
        run_id = repository.published(name).info.run_id
        repository.client.set_tag(run_id, f"{marks.OF_EXPERIMENT}pair", marks.THERE)
    several = repository.refused("diverge", record, "pair")
    assert "pair: has several runs (mlp, softmax); choose one with --name" in several


def test_code_that_only_one_side_has_is_named(repository: Any, tmp_path: Path) -> None:
    """Of a project in a folder, with spaces in names; what is the same, or no code, is not."""
    project = shutil.copytree(repository.workspace.root, tmp_path / "whole" / "a" / "project")
    shutil.rmtree(project / ".git")
    top, stages = project.parents[1], project / "stages"
    run, origins = in_folder(project / "models" / "mlp", "mlp"), []
    for i in range(2):
        for name in ("dvc.lock", "both.py") if i == 0 else ("dvc.lock", "committed caf\xe9.py"):
            (stages / name).write_text(f"{i}\n")
        for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", f"{i}")):
            revisions.git(*command, folder=top)
        (stages / "both.py").write_text("changed\n")
        (stages / f"new {i}.py").write_text("new\n")
        for file in (project / "params.yaml", top / "src"):
            file.write_text(f"{i + 2}\n")
        origin = context.gather(project)
        assert origin.commit and origin.diff
        state = State(commit=origin.commit, diff=origin.diff)
        origins.append(diverge.Origin(run=run, state=state))
        revisions.git("stash", "--quiet", "--include-untracked", folder=top)
    names = ("committed caf\xe9.py", "new 0.py", "new 1.py")
    assert diverge.diverge(*origins, Workspace(project))["code"] == [
        f"a/project/stages/{name}" for name in names
    ]


def test_another_machine_is_a_reason(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path / "workspace")
    write_variant(workspace, "mlp")
    origins = []
    for i, version in enumerate(("2.9.0", "2.8.0")):
        folder = shutil.copytree(workspace.models / "mlp", tmp_path / str(i))
        weights = in_folder(folder, "mlp").record.outputs["weights"]
        log = {**TIMINGS, "weights": weights, "threads": i}
        files.write_json(folder / "training_log.json", log)
        (folder / "environment.txt").write_text(f"# Python\nnumpy=={version}\nmpmath==1\n")
        origins.append(diverge.Origin(run=in_folder(folder, "mlp"), state=None))
    difference = diverge.diverge(*origins, workspace)
    assert difference["packages"] == {"numpy": ["2.9.0", "2.8.0"]}
    assert difference["hardware"] == {"threads": [0, 1]}
    assert difference["epoch"] is None and difference["same_outputs"]


# --- verify -----------------------------------------------------------------------------------


@pytest.mark.ci
def test_a_commit_that_promises_what_does_not_come_out(repository: Any) -> None:
    """A digest changed in the lock; a stage that the pipeline no longer has does not matter.

    Data of the cache are not believed: the stage that downloads them knows what they must be.
    """
    start, file = repository.git("rev-parse", "HEAD"), repository.workspace.root / "dvc.lock"
    (repository.workspace.root / "data" / "raw" / "images.txt").write_text("others")
    repository.dvc("commit", "--force", "download")
    lock = yaml.safe_load(file.read_text())
    lock["stages"]["evaluate@gone"] = {"cmd": "none", "outs": [{"path": "gone", "md5": "0" * 32}]}
    lock["stages"]["evaluate@mlp"]["outs"][0]["md5"] = "0" * 32
    file.write_text(yaml.safe_dump(lock))
    repository.commit("Promise something else")
    done = repository.refashion("verify", "--json")
    outputs = {o["path"]: o for o in json.loads(done.stdout)["outputs"]}
    different = [path for path, output in outputs.items() if not output["identical"]]
    assert (done.exit_code, different) == (1, ["data/raw", "models/mlp/history.csv"])
    assert outputs["models/mlp/history.csv"]["promised"] == "0" * 32
    expected = {"reports/evaluation/mlp", "reports/studies/sweep"}
    assert expected <= outputs.keys() and "gone" not in outputs

    done = repository.refashion("verify", start)
    assert done.exit_code == 0 and "data/raw: identical\n" in done.stdout
    file.unlink()
    repository.commit("Promise nothing")
    assert "has no dvc.lock with outputs" in repository.refused("verify")
    assert "no such revision" in repository.refused("verify", "nothing")


def test_a_frozen_stage_is_refused(repository: Any) -> None:
    """DVC would take its outputs as they are."""
    file = repository.workspace.root / "dvc.yaml"
    content = yaml.safe_load(file.read_text())
    content["stages"]["study"]["do"]["frozen"] = True
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    repository.commit("Freeze")
    assert "error: dvc.yaml: study is frozen, so DVC does not" in repository.refused("verify")


def test_a_pipeline_that_dvc_refuses_is_told_in_a_line(repository: Any) -> None:
    root = repository.workspace.root
    for number, text in enumerate(("", "- 1", "stages: 5", "stages: [", "stages: {a: {do: 3}}")):
        files.write_text(root / "stages" / str(number) / "dvc.yaml", text)
    with pytest.raises(UserError, match=r"^stages/3/dvc\.yaml: a stage failed, as told above"):
        pipeline.rerun(repository.workspace, ["stages/3/dvc.yaml"], repository.workspace)
    (root / "dvc.yaml").write_text("stages: [")
    commit = repository.commit("Damage")
    assert repository.refused("reproduce", commit).startswith("error: dvc stage: ")


def test_a_branch_is_meant_though_a_run_is_tagged_with_its_name(
    repository: Any, tmp_path: Path
) -> None:
    run = repository.published("mlp")
    repository.client.set_tag(run.info.run_id, f"{marks.OF_EXPERIMENT}main", marks.THERE)
    later = repository.commit("Later")
    with store.connect(repository.workspace, reading=True) as connected:
        (state,) = reproduce.find("main", tmp_path, connected, repository.workspace, "mlp")
    assert state.commit == later != run.data.tags["commit"]


# --- publish ----------------------------------------------------------------------------------


def test_outside_git_the_workspace_alone_is_published(repository: Any) -> None:
    shutil.rmtree(repository.workspace.root / ".git")
    done = repository.refashion("publish")
    assert (done.exit_code, done.stdout) == (0, "runs that were there already: 3\n")


# --- gate -------------------------------------------------------------------------------------


@pytest.mark.ci
def test_a_gate_names_all_that_holds_and_does_not(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline's predictions are in no cache any more, so they are made again."""
    stages = pipeline.promised(repository.workspace)
    digest = lockfile.outputs(stages)["reports/evaluation/softmax"]
    variants = {
        name: {"hidden": hidden, "lr": lr}
        for name, hidden, lr in (("softmax", [], 0.4), ("mlp", [32], 0.2), ("wide", [], 0.2))
    }
    gates = [
        {"run": "sweep/first", "metric": "loss", "at_most": 0.05, "margin": 0.06},
        {"run": "softmax", "metric": "loss", "at_least": 0.2, "margin": 0.06},
        {"run": "mlp", "metric": "loss", "at_least": 0.07, "margin": 0.01},
        {"run": "wide", "metric": "loss", "at_most": 0.05, "margin": 0.01},
        {"run": "softmax", "metric": "nonsense", "at_most": 1},
        {"run": "gone", "metric": "x", "at_least": 0},
    ]
    repository.change(variants=variants, gates=gates)
    repository.dvc("repro")
    cache = repository.workspace.root / ".dvc" / "cache" / "files" / "md5"
    (cache / digest[:2] / digest[2:]).unlink()
    environments = {"calm": {}, "windy": {"WOBBLE": "0.5"}}
    monkeypatch.setattr(gate.gate, "__defaults__", (None, environments))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    done = repository.refashion("gate", "--baseline", "HEAD")
    summary = (tmp_path / "summary.md").read_text()
    assert done.exit_code == 1 and done.stdout == f"{summary}\n"
    assert summary.startswith("## Gate: does not hold\n")
    rows = [line[2:-2].split(" | ") for line in summary.splitlines()[4:]]
    windy, names = "different: first at stage train, epoch 2", [*variants, "sweep/first"]
    worse = "correct only then 30, only now 0, p = 3.7e-09"
    assert {name: (holds, detail) for name, holds, detail in rows} == {
        "fresh": ("yes", "nothing has changed"),
        "reproduces: calm": ("yes", f"{', '.join(names)}: identical"),
        "reproduces: windy": ("**no**", "; ".join(f"{name}: {windy}" for name in names)),
        "sweep/first: loss": ("yes", "0.1000, must be <= 0.05 (margin 0.06)"),
        "softmax: loss": ("**no**", "0.1333, must be >= 0.2 (margin 0.06)"),
        "mlp: loss": ("yes", "0.0667, must be >= 0.07 (margin 0.01)"),
        "wide: loss": ("**no**", "0.0667, must be <= 0.05 (margin 0.01)"),
        "softmax: nonsense": ("**no**", "missing, must be <= 1"),
        "gone: x": ("**no**", "missing, must be >= 0"),
        "softmax: no worse than HEAD": ("**no**", worse),
        "mlp: no worse than HEAD": ("yes", "correct only then 0, only now 0, p = 1"),
        "wide: no worse than HEAD": ("yes", "new since then"),
    }
    altered = repository.workspace.studies / "sweep" / "first" / "metrics.json"
    files.write_json(altered, {"loss": 0.0})
    fresh = next(gate.gate(repository.workspace))
    assert not fresh.holds and fresh.detail == "changed: study@sweep, track; run `dvc repro`"
