"""`dvc exp run` in all its ways: each trains what changed and leaves runs in one database."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient


@pytest.fixture
def experiment(workspace, request):
    """Run one experiment and give what it printed; the workspace is put back afterwards."""

    def run(name: str, *arguments: str) -> str:
        return workspace.run("dvc", "exp", "run", "--name", name, *arguments)

    yield run
    workspace.run("git", "checkout", "--quiet", "--", ".")
    workspace.run("git", "clean", "--quiet", "--force", "-d", "models", "reports", "plots")
    workspace.run("dvc", "checkout", "--quiet")


def published(workspace, experiment: str) -> dict[str, dict]:
    """Params, tags and metrics of an MLflow experiment's runs, by name."""
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return {
        run.info.run_id: {**run.data.params, **run.data.tags, **run.data.metrics} for run in runs
    }


def runs(workspace, name: str, experiment: str = "digits") -> dict[str, dict]:
    """Those of a DVC experiment, by the run's name."""
    return {
        run["name"]: run
        for run in published(workspace, experiment).values()
        if name in run.get("dvc_exp", "").split(",")
    }


def shown(workspace, name: str) -> dict:
    """The row of an experiment in `dvc exp show`."""
    for revision in json.loads(workspace.run("dvc", "exp", "show", "--json")):
        for experiment in revision.get("experiments") or []:
            if experiment["name"] == name:
                return experiment["revs"][0]["data"]
    raise AssertionError(f"{name} is not shown")


def test_one_number(workspace, experiment) -> None:
    experiment("one-number", "-S", "lr=0.1")
    tracked = runs(workspace, "one-number")
    assert set(tracked) == set(workspace.models)
    assert {float(run["lr"]) for run in tracked.values()} == {0.1}
    row = shown(workspace, "one-number")
    assert row["params"]["params.yaml"]["data"]["lr"] == 0.1
    metrics = row["metrics"]["reports/metrics.json"]["data"]
    assert metrics["lr"] == dict.fromkeys(workspace.models, 0.1)
    assert metrics["accuracy"]["mlp"] == tracked["mlp"]["test_accuracy"]


@pytest.mark.ci
def test_one_variant_changed_shown_taken_and_removed(workspace, experiment) -> None:
    settings = ("-S", "variants.mlp.lr=0.03", "-S", "variants.mlp.hidden=[512,256]")
    printed = experiment("puffy-hake", *settings)
    assert "train@softmax' didn't change" in printed
    tracked = runs(workspace, "puffy-hake")
    assert set(tracked) == {"mlp"}
    assert tracked["mlp"]["lr"] == "0.03"
    assert json.loads(tracked["mlp"]["hidden"]) == [512, 256]
    difference = json.loads(workspace.run("dvc", "metrics", "diff", "--json"))
    assert "accuracy.mlp" in difference["reports/metrics.json"]
    difference = json.loads(workspace.run("dvc", "params", "diff", "--json"))
    rate = difference["params.yaml"]["variants.mlp.lr"]
    assert (rate["old"], rate["new"]) == (0.2, 0.03)
    workspace.run("dvc", "plots", "diff", "--out", "plots")
    page = (workspace.root / "plots/index.html").read_text()
    for title in ("Training loss", "Validation accuracy", "Confusion", "Calibration"):
        assert title in page
    assert "plots" in workspace.run("dvc", "plots", "show", "--out", "plots")
    columns = ("--only-changed", "--sort-by", "accuracy.mlp", "--sort-order", "desc")
    table = workspace.run("dvc", "exp", "show", *columns)
    assert "[puffy-hake]" in table and "accuracy.mlp" in table
    workspace.run("git", "checkout", ".")
    workspace.run("dvc", "checkout")
    workspace.run("dvc", "exp", "apply", "puffy-hake")
    assert "variants.mlp.lr" in workspace.run("dvc", "params", "diff")
    workspace.run("dvc", "exp", "remove", "puffy-hake")
    assert "puffy-hake" not in workspace.run("dvc", "exp", "list", "--name-only")


@pytest.mark.ci
def test_a_study(workspace, experiment) -> None:
    printed = experiment("a-study", "-S", "studies.weight_decay.weight_decays=[0,1,3]")
    assert "train@softmax' didn't change" in printed
    assert "study@house_prices' didn't change" in printed
    names = {run["name"] for run in published(workspace, "weight_decay").values()}
    assert names == {f"weight_decay/decay_{x}" for x in (0, 1, 3)}
    (tracked,) = runs(workspace, "a-study", "weight_decay").values()
    assert tracked["name"] == "weight_decay/decay_1"
    metrics = shown(workspace, "a-study")["metrics"]["reports/studies/weight_decay.json"]["data"]
    assert metrics["test_loss"]["decay_1"] == tracked["test_loss"]


@pytest.mark.ci
def test_one_variant_alone(workspace, experiment) -> None:
    """Trained, evaluated and published by one command."""
    params = (workspace.root / "params.yaml").read_text()
    (workspace.root / "params.yaml").write_text(params.replace("lr: 0.2", "lr: 0.15"))
    printed = workspace.run("dvc", "repro", "track@mlp")
    assert "mlp: published" in printed and "softmax" not in printed
    assert "0.15" in {run.get("lr") for run in published(workspace, "digits").values()}


def test_k_fold_is_a_pipeline_of_its_own(workspace) -> None:
    """Its folds are runs below the one that sums them up."""
    assert "k_fold" not in workspace.run("dvc", "repro", "--dry")
    assert "up to date" in workspace.run("dvc", "repro", "stages/k_fold/dvc.yaml")
    tracked = published(workspace, "k_fold")
    ids = {run["name"]: run_id for run_id, run in tracked.items()}
    by_name = {run["name"]: run for run in tracked.values()}
    folds = [f"k_fold/{name}.fold_{i}" for name in workspace.models for i in (1, 2)]
    assert set(ids) == {*(f"k_fold/{name}" for name in workspace.models), *folds}
    for name in workspace.models:
        own = [by_name[f"k_fold/{name}.fold_{i}"] for i in (1, 2)]
        assert {run["mlflow.parentRunId"] for run in own} == {ids[f"k_fold/{name}"]}
        accuracies = [run["validation_accuracy"] for run in own]
        parent = by_name[f"k_fold/{name}"]
        assert parent["validation_accuracy"] == pytest.approx(sum(accuracies) / 2)


@pytest.mark.ci
def test_a_sweep_is_a_pipeline_of_its_own(workspace) -> None:
    """Its trials are runs below the one that sums them up."""
    assert "sweep" not in workspace.run("dvc", "repro", "--dry")
    assert "up to date" in workspace.run("refashion", "sweep", "rates")
    tracked = published(workspace, "rates")
    ids = {run["name"]: run_id for run_id, run in tracked.items()}
    trials = [f"rates/softmax.trial_{i}" for i in (1, 2)]
    assert set(ids) == {"rates/softmax", *trials}
    for name, lr in zip(trials, ("0.02", "0.1"), strict=True):
        assert tracked[ids[name]]["mlflow.parentRunId"] == ids["rates/softmax"]
        assert tracked[ids[name]]["lr"] == lr


@pytest.mark.ci
def test_a_sweep_is_an_experiment_and_so_is_its_best_trial(workspace, experiment) -> None:
    printed = workspace.run(
        *("refashion", "sweep", "mlp", "-S", "lr=0.05,0.2", "-S", "seed=range(1,3)"),
        *("--processes", "2", "--name", "found"),
    )
    assert "found/mlp: child runs published: 4" in printed
    assert {run["dvc_exp"] for run in published(workspace, "found").values()} == {"found"}
    table = (workspace.root / "reports/studies/found/mlp/trials.csv").read_text()
    digests = [row.rpartition(",")[2] for row in table.splitlines()[1:]]
    status = workspace.run("git", "status", "--porcelain")
    printed = workspace.run("refashion", "promote", "found/mlp.trial_4", "--name", "promoted")
    assert f"the same weights, {digests[3][:12]}" in printed
    assert workspace.run("git", "status", "--porcelain") == status
    (run,) = runs(workspace, "promoted").values()
    assert (run["lr"], run["seed"], run["weights_sha256"]) == ("0.2", "2", digests[3])
    taken = workspace.run("refashion", "promote", "found/mlp.trial_1", "--name", "found", code=2)
    assert "found: there is a DVC experiment of that name" in taken
    same = workspace.run("refashion", "promote", "rates/softmax.trial_1", "--name", "same", code=2)
    assert "has the settings of params.yaml; `dvc repro` trains it" in same


@pytest.mark.ci
def test_sweeps_in_a_queue(workspace, experiment) -> None:
    """Of learning rates, and of seeds, whose mean and spread `refashion compare` shows."""
    for name, values in (("rate", "lr=0.05,0.1"), ("seed", "seed=range(1,4)")):
        queue = ("dvc", "exp", "run", "--queue", "--name", name, "-S", values)
        workspace.run(*queue, "track@mlp")
    workspace.run("dvc", "queue", "start", "-j", "2")
    patience = time.monotonic() + 600
    while (status := workspace.run("dvc", "queue", "status")).count("Success") < 5:
        assert "Failed" not in status
        assert time.monotonic() < patience, status
        time.sleep(1)
    rates = {float(run["lr"]) for n in (1, 2) for run in runs(workspace, f"rate-{n}").values()}
    assert rates == {0.05, 0.1}
    seeds = {runs(workspace, f"seed-{n}")["mlp"]["seed"] for n in (1, 2, 3)}
    assert seeds == {"1", "2", "3"}
    mlp = ("--experiment", "digits", "--tag", "name=mlp")
    tables = workspace.run("refashion", "compare", *mlp, "--markdown")
    (spread,) = (line for line in tables.splitlines() if "1,2,3" in line)
    assert spread.count(" ± ") > 3


@pytest.mark.ci
def test_other_images(workspace, experiment) -> None:
    settings = ("-S", "data.dataset=digits", "-S", "data.limit=500", "-S", "batch_size=32")
    experiment("digits", *settings, "track@mlp")
    ((name, run),) = runs(workspace, "digits").items()
    assert (name, run["batch_size"], run["data.limit"]) == ("mlp", "32", "500")


@pytest.mark.ci
def test_a_new_variant_and_back(workspace, experiment) -> None:
    """What an experiment leaves changes nothing in the workspace that it is put back to."""
    experiment("wide", "-S", "+variants.wide={hidden: [512], lr: 0.1}")
    assert json.loads(runs(workspace, "wide")["wide"]["hidden"]) == [512]
    metrics = shown(workspace, "wide")["metrics"]["reports/metrics.json"]["data"]
    assert set(metrics["accuracy"]) == {*workspace.models, "wide"}
    workspace.run("git", "checkout", ".")
    workspace.run("dvc", "checkout")
    assert (workspace.root / "models/wide/history.csv").exists()
    assert not (workspace.root / "reports/evaluation/wide").exists()
    assert "up to date" in workspace.run("dvc", "status", "dvc.yaml")
    assert "up to date" in workspace.run("dvc", "repro")
    assert workspace.run("git", "status", "--porcelain") == "?? models/wide/\n"


@pytest.mark.ci
def test_a_variant_that_is_gone(workspace, experiment) -> None:
    """It is shown by nobody; what it left is refused, for it would count as a result."""
    params = yaml.safe_load((workspace.root / "params.yaml").read_text())
    del params["variants"]["mlp"]
    (workspace.root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    printed = workspace.run("dvc", "repro", "compare", code=255)
    assert "params.yaml no longer has this variant; `dvc checkout` removes" in printed
    workspace.run("dvc", "checkout")
    workspace.run("dvc", "repro", "compare")
    metrics = json.loads((workspace.root / "reports/metrics.json").read_text())
    assert set(metrics["accuracy"]) == {"softmax"}
    assert "mlp" not in workspace.run("dvc", "status", "compare")


def test_the_table_of_experiments_is_readable(root: Path, workspace) -> None:
    """Of this very checkout: what counts is on a screen of 160 columns, and there is little else.

    DVC lays the table out 1,024 characters wide and shows its left part.
    """
    environment = {**os.environ, "PATH": workspace.environment["PATH"]}
    printed = subprocess.run(
        ["dvc", "exp", "show"], cwd=root, env=environment, capture_output=True, text=True
    )
    (header,) = (line for line in printed.stdout.splitlines() if "Experiment" in line)
    variants = yaml.safe_load((root / "params.yaml").read_text())["variants"]
    for name in ("Experiment", *(f"{x}.{v}" for x in ("lr", "accuracy") for v in variants)):
        assert f" {name} " in header[:160]
    names = [name for name in header.split() if name != "…"]
    assert len(names) <= 40, names
