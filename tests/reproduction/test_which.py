"""From a file or a digest to its run, wherever that is known."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from refashion.base import files
from refashion.runs import listing
from synthetic import write_variant


def which(repository: Any, thing: Path | str) -> list[dict[str, Any]]:
    done = repository.refashion("which", str(thing), "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_file_of_a_run_and_every_digest(repository: Any, tmp_path: Path) -> None:
    """A copy under another name, an artifact from MLflow, and the beginning of a digest."""
    run_id = repository.published("mlp").info.run_id
    expected = {
        **{"name": "mlp", "run_ids": [run_id], "experiments": []},
        **{"commits": [repository.git("rev-parse", "HEAD")]},
        "command": f"refashion reproduce {run_id}",
    }
    things: list[Path | str] = []
    run = listing.find(repository.workspace, "mlp")
    for file in run.files:
        things += [shutil.copyfile(file, tmp_path / f"copy-{file.name}"), files.sha256(file)[:6]]
    things.append(repository.client.download_artifacts(run_id, "predictions.csv", str(tmp_path)))
    things.append(run.record.outputs["weights"])
    assert len(things) == 10
    for thing in things:
        assert which(repository, thing) == [expected], thing
    done = repository.refashion("which", str(things[0]))
    assert done.stdout.splitlines() == [
        "mlp",
        f"  MLflow run {run_id}",
        f"  commit {expected['commits'][0]}",
        f"  again: refashion reproduce {run_id}",
    ]


@pytest.fixture
def bare(repository: Any) -> Any:
    """A repository without a tracking database."""
    (repository.workspace.root / "mlflow.db").unlink()
    return repository


def test_weights_saved_anew_and_long_gone_from_the_workspace(bare: Any, tmp_path: Path) -> None:
    folder = bare.workspace.models / "mlp"
    bare.change(variants={"mlp": {"hidden": [16], "lr": 0.2}})
    write_variant(bare.workspace, "mlp")
    weights = tmp_path / "found on a disk.bin"
    save_file(load_file(folder / "weights.safetensors"), weights, {"by": "somebody"})
    (source,) = which(bare, weights)
    assert (source["commits"], source["command"]) == ([], "dvc repro evaluate@mlp")
    commit = bare.experiment("puffy-hake")
    (source,) = which(bare, weights)
    assert source == {
        **{"name": "mlp", "run_ids": [], "experiments": ["puffy-hake"], "commits": [commit]},
        "command": f"git checkout {commit} && dvc repro evaluate@mlp",
    }


def test_what_merges_brought_and_what_they_left_out(bare: Any) -> None:
    """By commits that no branch names any more; each file has one commit that brought it."""
    record = bare.workspace.models / "mlp" / "record.json"
    bare.git("checkout", "--quiet", "-b", "side")
    write_variant(bare.workspace, "mlp", outcome="left out")
    left_out, side = record.read_bytes(), bare.commit("Another result")
    bare.git("checkout", "--quiet", "main")
    bare.git("merge", "--quiet", "--no-commit", "--strategy", "ours", "side")
    bare.git("branch", "--quiet", "-D", "side")
    write_variant(bare.workspace, "mlp", outcome="brought")
    merge = bare.commit("Merge")
    for content, commit in ((record.read_bytes(), merge), (left_out, side)):
        record.write_bytes(content)
        (source,) = which(bare, record)
        assert source["commits"] == [commit]


@pytest.mark.parametrize(
    ("name", "value"),
    [("log.showSignature", "true"), ("log.showRoot", "false"), ("core.quotePath", "false")],
)
def test_settings_of_git_change_no_answer(bare: Any, name: str, value: str, gpg: str) -> None:
    """Of a first commit, which is signed, and brings a file whose name is no text."""
    bare.git("config", "gpg.program", gpg)
    (bare.workspace.models / os.fsdecode(b"caf\xe9.txt")).touch()
    bare.commit("Add a file")
    commit = bare.git("commit-tree", "-S", "-m", "Start", "HEAD^{tree}")
    bare.git("update-ref", "HEAD", commit)
    bare.git("config", name, value)
    (source,) = which(bare, bare.workspace.models / "mlp" / "record.json")
    assert source["commits"] == [commit]


def test_what_sums_up_a_commit(bare: Any) -> None:
    file = bare.workspace.reports / "metrics.json"
    files.write_json(file, {"accuracy": {"mlp": 0.5}})
    commit = bare.commit("Sum up")
    files.write_json(file, {"accuracy": {"mlp": 0.6}})
    bare.commit("Sum up anew")
    bare.git("checkout", "--quiet", commit, "--", "reports/metrics.json")
    (source,) = which(bare, file)
    assert (source["name"], source["commits"]) == ("reports/metrics.json", [commit])
    assert source["command"] == f"git checkout {commit} && dvc repro"


def test_what_no_run_left(bare: Any) -> None:
    done = bare.refashion("which", str(bare.workspace.params_file))
    assert (done.exit_code, done.stdout.count("\n")) == (1, 1)
    assert "params.yaml: of no run in " in done.stdout and "no MLflow database" in done.stdout
    done = bare.refashion("which", "0" * 64, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (1, [])
    assert ".: is no file; name a file" in bare.refused("which", ".")
    for thing in ("weights.safetensors", "12345"):
        assert f"{thing}: no such file, and no digest" in bare.refused("which", thing)
