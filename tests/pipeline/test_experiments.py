"""`dvc exp run` in all its ways: each trains what changed and leaves runs in one database."""

import json
import time

import pytest
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


def runs(workspace, name: str) -> dict[str, dict]:
    """Params and tags of the MLflow runs of an experiment, by variant."""
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    return {
        run.data.tags["variant"]: {**run.data.params, **run.data.tags, **run.data.metrics}
        for run in found
        if name in run.data.tags.get("dvc_exp", "").split(",")
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
    published = runs(workspace, "one-number")
    assert set(published) == set(workspace.models)
    assert {float(run["lr"]) for run in published.values()} == {0.1}
    row = shown(workspace, "one-number")
    assert row["params"]["params.yaml"]["data"]["lr"] == 0.1
    accuracy = row["metrics"]["reports/evaluation/mlp/metrics.json"]["data"]["accuracy"]
    assert accuracy == published["mlp"]["test_accuracy"]
    difference = json.loads(workspace.run("dvc", "metrics", "diff", "--json"))
    assert "accuracy" in difference["reports/evaluation/mlp/metrics.json"]
    difference = json.loads(workspace.run("dvc", "params", "diff", "--json"))
    assert difference["params.yaml"]["lr"] == {"old": None, "new": 0.1}
    workspace.run("dvc", "plots", "diff", "--out", "plots")
    page = (workspace.root / "plots/index.html").read_text()
    assert "Training loss by epoch" in page
    assert "Confusion matrix" in page


def test_a_list(workspace, experiment) -> None:
    printed = experiment("a-list", "-S", "variants.mlp.hidden=[512,256]")
    assert "train@softmax' didn't change" in printed
    assert json.loads(runs(workspace, "a-list")["mlp"]["hidden"]) == [512, 256]


def test_a_study(workspace, experiment) -> None:
    printed = experiment("a-study", "-S", "studies.weight_decay.weight_decays=[0,1,3]")
    assert "train@softmax' didn't change" in printed
    assert "house_prices' didn't change" in printed
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("weight_decay").experiment_id])
    arms = {run.info.run_name: run.data for run in found}
    assert set(arms) == {"decay_0", "decay_1", "decay_3"}
    assert [n for n, arm in arms.items() if arm.tags.get("dvc_exp") == "a-study"] == ["decay_1"]
    metrics = shown(workspace, "a-study")["metrics"]["reports/studies/weight_decay/metrics.json"]
    assert metrics["data"]["decay_1"]["l2"] == arms["decay_1"].metrics["l2"]
    workspace.run("dvc", "plots", "diff", "--out", "plots")
    assert "Test loss by epoch" in (workspace.root / "plots/index.html").read_text()


def test_k_fold_is_a_pipeline_of_its_own(workspace) -> None:
    """Its folds are runs below the one that sums them up."""
    assert "k_fold" not in workspace.run("dvc", "repro", "--dry")
    assert "up to date" in workspace.run("dvc", "repro", "stages/k_fold/dvc.yaml")
    client = MlflowClient(f"sqlite:///{workspace.root}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("k_fold").experiment_id])
    arms = {run.info.run_name: run for run in found}
    folds = [f"{name}.fold_{i}" for name in workspace.models for i in (1, 2)]
    assert set(arms) == {*workspace.models, *folds}
    for name in workspace.models:
        own = [arms[f"{name}.fold_{i}"] for i in (1, 2)]
        parent = arms[name]
        assert {r.data.tags["mlflow.parentRunId"] for r in own} == {parent.info.run_id}
        accuracies = [run.data.metrics["validation_accuracy"] for run in own]
        assert parent.data.metrics["validation_accuracy"] == pytest.approx(sum(accuracies) / 2)


def test_a_new_variant_in_a_temporary_folder(workspace, experiment) -> None:
    wide = "+variants.wide={hidden: [512], lr: 0.1}"
    experiment("wide", "--temp", "-S", wide, "-S", "device=cpu")
    assert json.loads(runs(workspace, "wide")["wide"]["hidden"]) == [512]
    assert not (workspace.root / "models/wide").exists()
    metrics = shown(workspace, "wide")["metrics"]
    assert metrics["reports/comparison.json"]["data"]["variants"]["wide"]["images"] == 297


def test_a_sweep_in_a_queue(workspace, experiment) -> None:
    workspace.run("dvc", "exp", "run", "--queue", "--name", "sweep", "-S", "lr=0.05,0.1")
    workspace.run("dvc", "queue", "start", "-j", "2")
    patience = time.monotonic() + 300
    while (status := workspace.run("dvc", "queue", "status")).count("Success") < 2:
        assert "Failed" not in status
        assert time.monotonic() < patience, status
        time.sleep(1)
    rates = {float(run["lr"]) for n in (1, 2) for run in runs(workspace, f"sweep-{n}").values()}
    assert rates == {0.05, 0.1}


def test_variants_that_are_gone_leave_nothing(workspace, experiment) -> None:
    """An experiment's new variant must not change the lock of the workspace it is put back to."""
    experiment("gone", "-S", "+variants.gone={hidden: [8], lr: 0.1}")
    assert (workspace.root / "models/gone").exists()
    workspace.run("git", "checkout", "--quiet", "--", ".")
    workspace.run("dvc", "repro")
    assert not (workspace.root / "models/gone").exists()
    assert workspace.run("git", "status", "--porcelain") == ""
