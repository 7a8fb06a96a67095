"""Every run gets to MLflow once, and whole."""

import json
import math
import os
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.runs import listing, write
from refashion.tracking import publish, store
from refashion.tracking.context import Context
from refashion.tracking.publish import Publication
from synthetic import TIMINGS, write_evaluation, write_variant

VARIANTS = ("softmax", "mlp", "dropout")
CONTEXT = Context(
    commit="c" * 40, diff=b"a diff\n", experiment=None, baseline=None, environment="torch==1\n"
)
EXPERIMENT = Context(
    commit="c" * 40, diff=b"", experiment="puffy-hake", baseline="b" * 40, environment=""
)


def tell(workspace: Workspace, name: str = "mlp", context: Context = CONTEXT) -> Publication:
    with store.connect(workspace) as connected:
        return publish.publish(listing.find(workspace, name), context, connected, workspace)


def tell_study(workspace: Workspace, study: str) -> list[Publication]:
    runs = listing.of_study(workspace, study)
    with store.connect(workspace) as connected:
        return list(publish.publish_all(runs, CONTEXT, connected, workspace))


def client(workspace: Workspace) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{store.default_database(workspace)}")


def published(workspace: Workspace) -> list[MlflowRun]:
    database = client(workspace)
    return database.search_runs([e.experiment_id for e in database.search_experiments()])


def folder_of(run: MlflowRun) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://"))


def artifacts(run: MlflowRun) -> set[str]:
    folder = folder_of(run)
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def everything(workspace: Workspace) -> dict[str, object]:
    found: dict[str, object] = {r.info.run_id: r.to_dictionary() for r in published(workspace)}
    kept = (workspace.root / "mlflow-artifacts").rglob("*")
    return found | {str(f): f.read_bytes() for f in kept if f.is_file()}


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


# --- what a run carries -----------------------------------------------------------------------


def test_run_carries_everything(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_run, "draw", lambda run, workspace: {run.name: b"PNG"})
    (workspace.root / "dvc.lock").write_text("schema: '2.0'\n")
    done = tell(workspace)
    assert (done.outcome, done.name, done.divergence_of) == ("published", "mlp", None)
    (run,) = published(workspace)
    record = json.loads((workspace.models / "mlp" / "record.json").read_text())

    experiment = client(workspace).get_experiment(run.info.experiment_id)
    assert experiment.name == "fashion_mnist"
    assert (run.info.run_id, run.info.run_name, run.info.status) == (done.run_id, "mlp", "FINISHED")
    assert run.info.start_time == 1706933106000
    assert run.info.end_time - run.info.start_time == 8000

    params = run.data.params
    assert (params["hidden"], params["lr"], params["seed"]) == ("[256]", "0.1", "0")
    assert (params["data.dataset"], params["data.limit"]) == ("fashion_mnist", "null")
    assert set(params) == {*record["params"], *(f"data.{name}" for name in record["data"])}

    losses = client(workspace).get_metric_history(done.run_id, "validation_loss")
    assert [(m.step, m.value) for m in losses] == [(e, 1.1 / e) for e in (1, 2, 3, 4)]
    assert [m.timestamp - run.info.start_time for m in losses] == [3000, 5000, 7000, 8000]
    metrics = run.data.metrics
    assert metrics["test_accuracy"] == pytest.approx(1 - 9 / 60)
    assert metrics["test_cross_entropy_nats"] == 0.5
    assert metrics["test_f1/T-shirt_top"] == 0.85
    assert (metrics["seconds_per_epoch"], metrics["images_per_second"]) == (2.0, 60.5)
    assert not [name for name in metrics if "peak" in name or "sha256" in name]

    expected = {
        **{"name": "mlp", "experiment": "fashion_mnist", "numerics": "native/cpu"},
        **{"run_key": record["run_key"], "mlflow.source.name": "dvc repro evaluate@mlp"},
        **{"git_commit": "c" * 40, "git_dirty": "true", "mlflow.source.git.commit": "c" * 40},
        **{"dataset_digest": record["inputs"]["train"], "published": "complete"},
        **{"device": "cpu", "device_name": "A Processor", "threads": "2", "torch": "2.9.0"},
    }
    assert expected.items() <= run.data.tags.items()
    assert not {"dvc_exp", "dvc_exp_baseline", "divergence_of"} & set(run.data.tags)

    used = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert set(used) == {"training", "validation"}
    assert used["training"].name == "fashion_mnist"
    assert record["inputs"]["train"].startswith(used["training"].digest)

    assert artifacts(run) == {
        *("record.json", "weights.safetensors", "history.csv", "metrics.json", "per_class.csv"),
        *("predictions.csv", "calibration.csv", "params.yaml", "dvc.yaml", "dvc.lock"),
        *("training_log.json", "uncommitted.diff", "environment.txt", "figures/mlp.png"),
    }


def test_runs_of_a_study_carry_theirs(workspace: Workspace) -> None:
    record = listing.find(workspace, "weight_decay/decay_3").record
    table = {"gradients.csv": (["layer", "norm"], [[1, 0.5]])}
    rows = [{"train_loss": 0.5, "test_loss": 0.7}, {"train_loss": 0.25}]  # one measure ends early
    metrics = {"train_loss": 0.25, "l2": 3.0, "l2_std": 0.1}
    write.write(
        *(workspace.root, record, rows),
        **{"digest": "d" * 64, "tables": table, "metrics": metrics, "timings": TIMINGS},
    )
    tell_study(workspace, "weight_decay")
    runs = {run.data.tags["name"]: run for run in published(workspace)}
    assert set(runs) == {"weight_decay/decay_0", "weight_decay/decay_3"}
    run = runs["weight_decay/decay_3"]
    experiment = client(workspace).get_experiment(run.info.experiment_id)
    assert (experiment.name, run.info.run_name) == ("weight_decay", "decay_3")
    assert metrics.items() <= run.data.metrics.items()
    losses = client(workspace).get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value) for m in losses] == [(1, 0.5), (2, 0.25)]  # the last is told once
    assert run.data.metrics["test_loss"] == 0.7
    common = {"record.json", "history.csv", "metrics.json", "params.yaml", "dvc.yaml"}
    common |= {"training_log.json", "environment.txt", "uncommitted.diff"}
    assert artifacts(run) == common | {"gradients.csv"}


def test_folds_lie_under_their_variant(workspace: Workspace) -> None:
    parent, *folds = tell_study(workspace, "k_fold")
    assert parent.name == "k_fold/mlp"
    above = {r.info.run_id: r.data.tags.get("mlflow.parentRunId") for r in published(workspace)}
    assert above == {parent.run_id: None, **{fold.run_id: parent.run_id for fold in folds}}


def test_experiment_of_a_new_run(workspace: Workspace) -> None:
    tell(workspace, context=EXPERIMENT)
    (run,) = published(workspace)
    expected = {"dvc_exp": "puffy-hake", "dvc_exp_baseline": "b" * 40, "git_dirty": "false"}
    assert expected.items() <= run.data.tags.items()
    assert "uncommitted.diff" not in artifacts(run)


def test_run_without_log_claims_no_hardware(workspace: Workspace) -> None:
    shutil.rmtree(workspace.logs)
    tell(workspace)
    (run,) = published(workspace)
    assert not {"device", "device_name", "torch"} & set(run.data.tags)
    assert not {"seconds_per_epoch", "images_per_second"} & set(run.data.metrics)
    assert run.info.start_time == run.info.end_time
    assert run.data.metrics["train_loss"] == 0.25


def test_infinite_loss_is_published(workspace: Workspace) -> None:
    record = listing.find(workspace, "mlp").record
    rows = [{"train_loss": math.inf, "train_accuracy": 0.1}] * 3
    write.write(workspace.root, record, rows, digest="d" * 64, timings=TIMINGS)
    assert tell(workspace).outcome == "published"
    (run,) = published(workspace)
    assert run.data.metrics["train_loss"] > 1e300


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "record.json"])
def test_missing_file_is_told_and_leaves_no_run(workspace: Workspace, name: str) -> None:
    for folder in workspace.variant_folders("mlp"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=rf"^mlp: its {name} is missing; run `dvc repro`"):
        tell(workspace)
    assert published(workspace) == []


# --- a second time ----------------------------------------------------------------------------


def test_publishing_twice_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (*VARIANTS, "weight_decay/decay_0")
    first = [tell(workspace, name).run_id for name in names]
    assert len(set(first)) == len(names)
    before = everything(workspace)
    monkeypatch.setattr(of_run, "draw", pytest.fail)  # nothing is drawn in vain
    again = [tell(workspace, name) for name in names]
    assert [done.run_id for done in again] == first
    assert {done.outcome for done in again} == {"already there"}
    assert everything(workspace) == before


def test_names_of_experiments_add_up(workspace: Workspace) -> None:
    run_id = tell(workspace).run_id
    for name in ("puffy-hake", "b", "puffy-hake"):
        context = replace(EXPERIMENT, experiment=name)
        assert tell(workspace, context=context).outcome == "already there"
    (run,) = published(workspace)
    assert run.info.run_id == run_id
    assert run.data.tags["dvc_exp"] == "b,puffy-hake"
    assert publish.experiments(run) == ["b", "puffy-hake"]
    assert run.data.tags["git_dirty"] == "true"


def test_other_outputs_of_the_same_key_are_a_divergence(workspace: Workspace) -> None:
    first = tell(workspace)
    write_variant(workspace, "mlp", "another outcome")
    second = tell(workspace)
    assert (second.outcome, second.divergence_of) == ("divergence", first.run_id)
    by_id = {run.info.run_id: run.data.tags for run in published(workspace)}
    assert by_id[second.run_id]["divergence_of"] == first.run_id
    assert by_id[second.run_id]["run_key"] == by_id[first.run_id]["run_key"]
    assert by_id[second.run_id]["result"] != by_id[first.run_id]["result"]
    again = tell(workspace)
    assert (again.outcome, again.run_id) == ("already there", second.run_id)
    assert again.divergence_of == first.run_id
    write_variant(workspace, "mlp")
    back = tell(workspace)
    assert (back.outcome, back.run_id) == ("already there", first.run_id)


def test_another_evaluation_refreshes_the_run(workspace: Workspace) -> None:
    first = tell(workspace)
    write_evaluation(workspace, "mlp", wrong=30)
    assert tell(workspace, context=EXPERIMENT).outcome == "measured anew"
    (run,) = published(workspace)
    assert run.info.run_id == first.run_id
    assert (run.data.metrics["test_accuracy"], run.data.tags["dvc_exp"]) == (0.5, "puffy-hake")
    assert json.loads((folder_of(run) / "metrics.json").read_text())["test_accuracy"] == 0.5
    assert (folder_of(run) / "uncommitted.diff").read_bytes() == CONTEXT.diff
    assert tell(workspace).outcome == "already there"


def test_run_that_somebody_else_tagged_is_left_alone(workspace: Workspace) -> None:
    key = listing.find(workspace, "mlp").record.run_key
    experiment = client(workspace).create_experiment("fashion_mnist", workspace.root.as_uri())
    client(workspace).create_run(experiment, tags={"run_key": key})
    assert tell(workspace).outcome == "published"
    assert len(published(workspace)) == 2


def test_deleted_experiment_is_told(workspace: Workspace) -> None:
    tell(workspace)
    client(workspace).delete_experiment(published(workspace)[0].info.experiment_id)
    with pytest.raises(UserError, match=r"'fashion_mnist': was deleted .* restore -x 1`"):
        tell(workspace)


def test_deleted_run_is_published_again(workspace: Workspace) -> None:
    first = tell(workspace).run_id
    client(workspace).delete_run(first)
    second = tell(workspace)
    assert second.outcome == "published" and second.run_id != first


# --- interrupted ------------------------------------------------------------------------------


def test_refresh_that_was_interrupted_is_done_again(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(workspace)
    write_evaluation(workspace, "mlp", wrong=30)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "log_batch", interrupt)
        tell(workspace)
    assert tell(workspace).outcome == "measured anew"


@pytest.mark.parametrize("step", ["log_batch", "log_artifacts", "set_terminated", "set_tag"])
def test_interrupted_publication_is_done_anew(
    workspace: Workspace, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, step, interrupt)
        tell(workspace)
    (unfinished,) = published(workspace)
    done = tell(workspace)
    assert done.outcome == "published"
    (run,) = published(workspace)
    assert run.info.run_id == done.run_id != unfinished.info.run_id


@pytest.mark.parametrize(
    ("publisher", "abandoned"),
    [
        ("{host} {dead} {now}", True),
        ("{host} 1 {now}", False),
        ("{host} {own} {now}", True),
        ("elsewhere {dead} {now}", False),
        ("elsewhere {dead} {long_ago}", True),
    ],
)
def test_abandoned_publications_are_deleted(
    workspace: Workspace, publisher: str, abandoned: bool
) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    mark = publisher.format(
        **{"host": socket.gethostname(), "own": os.getpid(), "dead": process.pid},
        **{"now": int(time.time()), "long_ago": int(time.time()) - publish.PATIENCE - 1},
    )
    first = tell(workspace).run_id
    client(workspace).set_tag(first, "published", mark)
    second = tell(workspace)
    assert second.outcome == "published"
    left = {run.info.run_id for run in published(workspace)}
    assert left == ({second.run_id} if abandoned else {first, second.run_id})


# --- rivals on a server -----------------------------------------------------------------------


@pytest.mark.parametrize("older", [True, False])
def test_publishers_that_could_not_see_each_other_agree(
    workspace: Workspace, older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server: both looked before either had made its run."""
    shutil.rmtree(workspace.logs)  # the runs begin when they are published
    first = tell(workspace, context=EXPERIMENT)
    if not older:
        earlier = time.time() - 60
        monkeypatch.setattr(time, "time", lambda: earlier)
    find_complete, looks = publish._complete, []

    def blind_at_first(*arguments: Any) -> list[MlflowRun]:
        looks.append(arguments)
        return [] if len(looks) == 1 else find_complete(*arguments)

    monkeypatch.setattr(publish, "_complete", blind_at_first)
    done = tell(workspace, context=replace(EXPERIMENT, experiment="a second"))
    (run,) = published(workspace)
    assert run.info.run_id == done.run_id
    assert (done.run_id == first.run_id) is older
    assert set(run.data.tags["dvc_exp"].split(",")) == {"puffy-hake", "a second"}


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_data_set_that_a_rival_told_of_first_is_told_of_again(
    workspace: Workspace, refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server looks for its row, then writes it: between the two, another request may have."""
    log_inputs, refused = MlflowClient.log_inputs, []

    def refuse_at_first(*arguments: Any) -> Any:
        if len(refused) < refusals:
            refused.append(arguments)
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed")
        return log_inputs(*arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse_at_first)
    if refusals == 2:
        with pytest.raises(UserError, match="no result is lost"):
            tell(workspace)
    else:
        tell(workspace)
        (run,) = published(workspace)
        assert len(run.inputs.dataset_inputs) == 2
