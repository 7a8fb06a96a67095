"""Every run gets to MLflow once, and whole."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException

from publishing import CONTEXT, EXPERIMENT, address, artifacts, models, published, tell, the_run
from refashion.base import machine
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.runs import listing, write
from refashion.tracking import integrity, marks, publish, store, view
from refashion.tracking.published import read
from synthetic import TIMINGS, write_evaluation, write_variant

DRAW = of_run.draw  # which conftest replaces
TESTS = str(Path(__file__).parents[1])
COMMON = {
    *("record.json", "history.csv", "metrics.json", "params.yaml", "dvc.yaml"),
    *("training_log.json", "uncommitted.diff", "environment.txt", "digests.json"),
}
"""Artifacts of any run."""


def names_of_artifacts(run: MlflowRun) -> set[str]:
    folder = artifacts(run)
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def content(workspace: Workspace) -> dict[str, object]:
    """All that the database and the folder of artifacts hold."""
    runs = {run.info.run_id: run.to_dictionary() for run in published(address(workspace))}
    files = (workspace.root / "mlflow-artifacts").rglob("*")
    return runs | {str(f): f.read_bytes() for f in files if f.is_file()}


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


# --- what a run carries -----------------------------------------------------------------------


def test_run_carries_everything(
    workspace: Workspace, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_run, "draw", DRAW)
    (workspace.root / "dvc.lock").write_text("schema: '2.0'\n")
    (done,) = tell(workspace, "mlp")
    assert (done.outcome, done.name, done.divergence_of) == ("published", "mlp", None)
    run = the_run(workspace)
    record = json.loads((workspace.models / "mlp" / "record.json").read_text())

    experiment = client.get_experiment(run.info.experiment_id)
    assert experiment.name == "fashion_mnist"
    assert experiment.artifact_location.endswith("/mlflow-artifacts/fashion_mnist")
    assert (run.info.run_id, run.info.run_name, run.info.status) == (done.run_id, "mlp", "FINISHED")
    assert run.info.start_time == 1706933106000
    assert run.info.end_time - run.info.start_time == 8000

    params = run.data.params
    assert (params["hidden"], params["lr"], params["seed"]) == ("[256]", "0.1", "0")
    assert (params["data.dataset"], params["data.limit"]) == ("fashion_mnist", "null")
    assert set(params) == {*record["params"], *(f"data.{name}" for name in record["data"])}

    losses = client.get_metric_history(done.run_id, "epoch/validation_loss")
    assert [(m.step, m.value) for m in losses] == [(e, 1.1 / e) for e in (1, 2, 3, 4)]
    assert [m.timestamp - run.info.start_time for m in losses] == [3000, 5000, 7000, 8000]
    metrics = run.data.metrics
    assert metrics["test_accuracy"] == pytest.approx(1 - 9 / 60)
    assert metrics["test_cross_entropy_nats"] == 0.5
    speed = {name: value for name, value in metrics.items() if name.startswith("system/")}
    assert speed == {"system/seconds_per_epoch": 2.0, "system/images_per_second": 60.5}
    assert not [name for name in metrics if "f1/" in name or "images" in name.partition("/")[0]]

    expected = {
        **{"name": "mlp", "experiment": "fashion_mnist", "contract": "native/cpu"},
        **{"run_key": record["run_key"], "mlflow.source.name": "dvc repro evaluate@mlp"},
        **{"commit": "c" * 40, "dirty": "true", "mlflow.source.git.commit": "c" * 40},
        **{"weights_sha256": record["outputs"]["weights"], integrity.PUBLISHED: "complete"},
        **{"device": "cpu", "device_name": "A Processor", "threads": "2", "torch": "2.9.0"},
    }
    assert expected.items() <= run.data.tags.items()
    assert not {"dvc_exp", "dvc_exp_baseline", "divergence_of"} & set(run.data.tags)

    used = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert set(used) == {"training", "validation"}
    assert used["training"].name == "fashion_mnist"
    assert record["inputs"]["train"].startswith(used["training"].digest)

    names = names_of_artifacts(run)
    pictures = {name for name in names if name.startswith("figures/")}
    assert {"figures/learning_curves.png", "figures/confusion_matrix.png"} <= pictures
    assert names - pictures == COMMON | {
        *("weights.safetensors", "per_class.csv", "predictions.csv", "calibration.csv", "dvc.lock")
    }


@pytest.mark.ci
def test_a_model_that_the_user_made_active_gets_no_metric_of_a_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in store.ACTIVE_MODEL:
        monkeypatch.setenv(name, "m-0")  # which there is not: it could not be written
    code = "import publishing; publishing.tell(publishing.Workspace.here(), 'mlp')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=workspace.root, env=os.environ | {"PYTHONPATH": TESTS})
    assert done.returncode == 0


def test_runs_of_a_study_carry_theirs(workspace: Workspace, client: MlflowClient) -> None:
    record = listing.find(workspace, "weight_decay/decay_3").record
    table = {"gradients.csv": (["layer", "norm"], [[1, 0.5]])}
    rows = [{"train_loss": 0.5, "test_loss": 0.7}, {"train_loss": 0.25}]  # one measure ends early
    metrics = {"train_loss": 0.25, "l2": 3.0, "l2_std": 0.1}
    write.write(
        *(workspace, record, rows),
        **{"digest": "d" * 64, "tables": table, "metrics": metrics, "timings": TIMINGS},
    )
    tell(workspace, "weight_decay/decay_3")
    run = the_run(workspace)
    experiment = client.get_experiment(run.info.experiment_id)
    assert (experiment.name, run.info.run_name) == ("weight_decay", "decay_3")
    assert run.data.tags["name"] == "weight_decay/decay_3"
    assert metrics.items() <= run.data.metrics.items()
    losses = client.get_metric_history(run.info.run_id, "epoch/train_loss")
    assert [(m.step, m.value) for m in losses] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics["epoch/test_loss"] == 0.7
    assert names_of_artifacts(run) == COMMON | {"gradients.csv"}


def test_a_classifier_has_its_model(workspace: Workspace, client: MlflowClient) -> None:
    (done, _) = tell(workspace, "mlp", "weight_decay/decay_3")
    (model,) = models(address(workspace))
    run = client.get_run(done.run_id)
    assert (model.name, model.source_run_id, model.status) == ("mlp", done.run_id, "READY")
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert {"contract": "native/cpu", "run": "mlp"}.items() <= model.tags.items()
    assert model.params == run.data.params
    test = {name: value for name, value in run.data.metrics.items() if name.startswith("test_")}
    assert {metric.key: metric.value for metric in model.metrics} == test
    write_evaluation(workspace, "mlp", wrong=30)
    tell(workspace, "mlp")
    (model,) = models(address(workspace))
    assert {metric.key: metric.value for metric in model.metrics}["test_accuracy"] == 0.5


def test_experiments_and_runs_are_described(workspace: Workspace, client: MlflowClient) -> None:
    (done, study) = tell(workspace, "mlp", "weight_decay/decay_3")
    run = client.get_run(done.run_id)
    description = run.data.tags["mlflow.note.content"]
    assert "`mlp` on fashion_mnist: hidden layers [256], learning rate 0.1" in description
    assert f"`refashion reproduce {done.run_id}`" in description
    experiment = client.get_experiment(run.info.experiment_id)
    columns = json.loads(experiment.tags[view.TAG])["selectedColumns"]
    names = ("tags.`name`", "params.`lr`", "metrics.`test_accuracy`")
    assert set(names) <= set(columns) and "metrics.`test_images`" not in columns
    for key in (view.TAG, "mlflow.note.content"):
        client.set_experiment_tag(experiment.experiment_id, key, "mine")
    of_study = client.get_experiment(client.get_run(study.run_id).info.experiment_id)
    assert "The study *weight_decay*" in of_study.tags["mlflow.note.content"]
    tell(workspace, "softmax")
    tags = client.get_experiment(experiment.experiment_id).tags
    assert {tags[key] for key in (view.TAG, "mlflow.note.content")} == {"mine"}


def test_run_without_log_claims_no_hardware(workspace: Workspace) -> None:
    shutil.rmtree(workspace.logs)
    tell(workspace, "mlp")
    run = the_run(workspace)
    assert not {"device", "device_name", "torch"} & set(run.data.tags)
    assert not [name for name in run.data.metrics if name.startswith("system/")]
    assert run.info.start_time == run.info.end_time
    assert run.data.metrics["epoch/train_loss"] == 0.25


def test_infinite_loss_is_published(workspace: Workspace) -> None:
    record = listing.find(workspace, "mlp").record
    rows = [{"train_loss": math.inf, "train_accuracy": 0.1}] * 3
    write.write(workspace, record, rows, digest="d" * 64, timings=TIMINGS)
    assert tell(workspace, "mlp")[0].outcome == "published"
    run = the_run(workspace)
    assert run.data.metrics["epoch/train_loss"] > 1e300


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "record.json"])
def test_missing_file_is_told_and_leaves_no_run(workspace: Workspace, name: str) -> None:
    for folder in workspace.variant_folders("mlp"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=rf"^mlp: its {name} is missing; run `dvc repro`"):
        tell(workspace, "mlp")
    assert published(address(workspace)) == []


# --- a second time ----------------------------------------------------------------------------


def test_publishing_twice_changes_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the user asks MLflow not to wait for the end of its logging."""
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    names = ("softmax", "mlp", "dropout", "weight_decay/decay_0")
    first = [done.run_id for done in tell(workspace, *names)]
    assert len(set(first)) == len(names)
    before = content(workspace)
    monkeypatch.setattr(of_run, "draw", pytest.fail)  # nothing is drawn in vain
    again = tell(workspace, *names)
    assert [(done.run_id, done.outcome) for done in again] == [(i, "already there") for i in first]
    assert content(workspace) == before


def test_names_of_experiments_add_up(workspace: Workspace) -> None:
    (first,) = tell(workspace, "mlp", context=replace(EXPERIMENT, diff=b""))
    for name in ("b", "puffy-hake"):
        (done,) = tell(workspace, "mlp", context=replace(EXPERIMENT, experiment=name))
        assert (done.outcome, done.run_id) == ("already there", first.run_id)
    run = the_run(workspace)
    expected = {"dvc_exp": "b,puffy-hake", "dvc_exp_baseline": "b" * 40, "dirty": "false"}
    assert expected.items() <= run.data.tags.items()
    assert marks.experiments(run) == ["b", "puffy-hake"]
    assert "uncommitted.diff" not in names_of_artifacts(run)


@pytest.mark.parametrize("state", [marks.THERE, marks.REMOVED])
@pytest.mark.parametrize(
    "names",
    [[f"puffy-{i:05}" for i in range(720)], ["é" * 100, "é" * 101, "x" * 6000, "~:% "]],
    ids=["many", "long"],
)
def test_any_names_of_experiments_are_told_once(
    workspace: Workspace, names: list[str], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow cuts long values of tags, and takes short names of them, a hundred at once."""
    tell(workspace, "mlp")
    log_batch, requests = MlflowClient.log_batch, count()

    def log_seldom(*arguments: Any, **options: Any) -> None:
        assert next(requests) < 20
        log_batch(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", log_seldom)
    with store.connect(workspace) as connected:
        assert marks.mark(the_run(workspace), names, state, connected.client)
        assert not marks.mark(the_run(workspace), names, state, connected.client)
    tell(workspace, "mlp", context=EXPERIMENT)
    tell(workspace, "mlp", context=replace(EXPERIMENT, experiment=names[-1]))
    told = {s: marks.experiments(the_run(workspace), s) for s in (marks.THERE, marks.REMOVED)}
    known = sorted(name for name in names if len(name) < 5000)
    last = [names[-1]]
    assert told[marks.THERE] == sorted(
        {"puffy-hake", *last, *(known if state == marks.THERE else [])}
    )
    assert told[marks.REMOVED] == sorted({*known} - {*last} if state == marks.REMOVED else {})


def test_a_forged_mark_names_no_experiment(workspace: Workspace, client: MlflowClient) -> None:
    tell(workspace, "mlp", context=EXPERIMENT)
    run_id = the_run(workspace).info.run_id
    for key in (marks.OF_EXPERIMENT + "puffy:2dhake", marks.OF_LONG_NAME + "0" * 64):
        client.set_tag(run_id, key, "there")
        client.set_tag(run_id, f"{key}0", "there is none")
    assert marks.experiments(the_run(workspace)) == ["puffy-hake"]


def test_a_long_setting_is_published_once(workspace: Workspace) -> None:
    """MLflow cuts it: what it has left is what is compared."""
    record = listing.find(workspace, "weight_decay/decay_3").record
    record = replace(record, params={**record.params, "space": {"seed": list(range(1301))}})
    metrics = {"train_loss": 0.25}
    write.write(workspace, record, [metrics], digest="d" * 64, metrics=metrics, timings=TIMINGS)
    outcomes = [tell(workspace, record.name)[0].outcome for _ in range(2)]
    assert outcomes == ["published", "already there"]


def test_other_outputs_of_the_same_key_are_a_divergence(workspace: Workspace) -> None:
    (first,) = tell(workspace, "mlp")
    write_variant(workspace, "mlp", "another outcome")
    (second,) = tell(workspace, "mlp")
    assert (second.outcome, second.divergence_of) == ("divergence", first.run_id)
    tags = {run.info.run_id: run.data.tags for run in published(address(workspace))}
    assert tags[second.run_id]["divergence_of"] == first.run_id
    assert tags[second.run_id]["run_key"] == tags[first.run_id]["run_key"]
    digests = [tags[done.run_id]["weights_sha256"] for done in (first, second)]
    assert digests[0] != digests[1]
    assert tell(workspace, "mlp") == [replace(second, outcome="already there")]
    write_variant(workspace, "mlp")
    assert tell(workspace, "mlp") == [replace(first, outcome="already there")]


def test_another_evaluation_refreshes_the_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = tell(workspace, "mlp")
    write_evaluation(workspace, "mlp", wrong=30)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "log_batch", interrupt)
        tell(workspace, "mlp")
    (done,) = tell(workspace, "mlp")
    assert done == replace(first, outcome="healed")
    write_evaluation(workspace, "mlp", wrong=15)
    tell(workspace, "mlp")
    write_evaluation(workspace, "mlp", wrong=30)
    (done,) = tell(workspace, "mlp", context=replace(EXPERIMENT, diff=b"another"))
    assert done == replace(first, outcome="measured anew")
    run = the_run(workspace)
    assert (run.data.metrics["test_accuracy"], run.data.tags["dvc_exp"]) == (0.5, "puffy-hake")
    folder = artifacts(run)
    assert json.loads((folder / "metrics.json").read_text())["test_accuracy"] == 0.5
    assert (folder / "uncommitted.diff").read_bytes() == CONTEXT.diff
    assert tell(workspace, "mlp") == [replace(first, outcome="already there")]


def test_run_that_somebody_else_tagged_is_left_alone(
    workspace: Workspace, client: MlflowClient
) -> None:
    key = listing.find(workspace, "mlp").record.run_key
    experiment = client.create_experiment("fashion_mnist", workspace.root.as_uri())
    client.create_run(experiment, tags={"run_key": key})
    assert tell(workspace, "mlp")[0].outcome == "published"
    assert len(published(address(workspace))) == 2


def test_what_was_deleted_in_mlflow(workspace: Workspace, client: MlflowClient) -> None:
    (first,) = tell(workspace, "mlp")
    client.delete_run(first.run_id)
    (second,) = tell(workspace, "mlp")
    assert second.outcome == "published" and second.run_id != first.run_id
    client.delete_experiment(the_run(workspace).info.experiment_id)
    with pytest.raises(UserError, match=r"'fashion_mnist': was deleted .* restore -x 1`"):
        tell(workspace, "mlp")


# --- interrupted ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step", ["log_batch", "log_model_artifacts", "log_artifacts", "set_terminated", "set_tag"]
)
def test_interrupted_publication_is_done_anew(
    workspace: Workspace, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, step, interrupt)
        tell(workspace, "mlp")
    unfinished = the_run(workspace)
    (done,) = tell(workspace, "mlp")
    assert done.outcome == "published"
    assert the_run(workspace).info.run_id == done.run_id != unfinished.info.run_id
    assert [model.source_run_id for model in models(address(workspace))] == [done.run_id]


@pytest.mark.parametrize(
    ("publisher", "abandoned"),
    [
        ("{here} {dead} {now}", True),
        ("{host} {dead} {now}", False),  # another machine, or container, of the same name
        ("{here} 1 {now}", False),
        ("{here} {own} {now}", True),
        ("elsewhere {dead} {now}", False),
        ("elsewhere {dead} {long_ago}", True),
        ("elsewhere {dead} 9{now}", True),
        ("elsewhere 1 {huge}", True),
        ("{here} {huge} {now}", True),
        ("--help", True),
    ],
)
def test_abandoned_publications_are_deleted(
    workspace: Workspace, client: MlflowClient, publisher: str, abandoned: bool
) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    mark = publisher.format(
        **{"here": machine.PROCESSES, "host": machine.HOST},
        **{"own": os.getpid(), "dead": process.pid},
        **{"now": int(time.time()), "long_ago": int(time.time()) - publish.PATIENCE - 1},
        huge="9" * 400,
    )
    (first,) = tell(workspace, "mlp")
    client.set_tag(first.run_id, integrity.PUBLISHED, mark)
    (second,) = tell(workspace, "mlp")
    assert second.outcome == "published"
    runs = {run.info.run_id for run in published(address(workspace))}
    assert runs == ({second.run_id} if abandoned else {first.run_id, second.run_id})


# --- rivals on a server -----------------------------------------------------------------------


@pytest.mark.parametrize("looks", [1, 2])
@pytest.mark.parametrize("older", [True, False])
def test_publishers_that_could_not_see_each_other_agree(
    workspace: Workspace, older: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server: both looked before either had made its run, or had completed it.

    The one that was complete when the other looked stays, for its publisher has told of it.
    """
    shutil.rmtree(workspace.logs)  # the runs begin when they are published
    (first,) = tell(workspace, "mlp", context=EXPERIMENT)
    if not older:
        earlier = time.time() - 60
        monkeypatch.setattr(time, "time", lambda: earlier)
    search_runs, searches = MlflowClient.search_runs, count()

    def blind_at_first(*arguments: Any, **options: Any) -> list[MlflowRun]:
        return search_runs(*arguments, **options) if next(searches) > looks else []

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "search_runs", blind_at_first)
        (done,) = tell(workspace, "mlp", context=replace(EXPERIMENT, experiment="a second"))
    run = the_run(workspace)
    assert run.info.run_id == done.run_id
    assert (done.run_id == first.run_id) is (older or looks == 1)
    assert done.outcome == ("already there" if done.run_id == first.run_id else "published")
    assert [model.source_run_id for model in models(address(workspace))] == [done.run_id]
    assert marks.experiments(run) == ["a second", "puffy-hake"]
    assert run.data.tags["dvc_exp"] == "a second,puffy-hake"


def test_parts_go_to_the_parent_that_stays(workspace: Workspace, client: MlflowClient) -> None:
    """A rival's parent replaces the one that parts are being published under."""
    names = ("k_fold/mlp", "k_fold/mlp.fold_1", "k_fold/mlp.fold_2")
    runs_to_publish = [listing.find(workspace, name) for name in names]
    with store.connect(workspace) as connected:
        publications = publish.publish_all(runs_to_publish, CONTEXT, connected, workspace)
        parent, _ = next(publications), next(publications)
        client.delete_run(parent.run_id)
        tell(workspace, names[0])
        assert next(publications).outcome == "published"
        assert list(publications) == []
    before = content(workspace)
    runs = {run.data.tags["name"]: run for run in published(address(workspace))}
    assert sorted(runs) == sorted(names)
    parent_id = runs["k_fold/mlp"].info.run_id
    assert {runs[name].data.tags[publish.PARENT] for name in names[1:]} == {parent_id}
    assert {done.outcome for done in tell(workspace, *names)} == {"already there"}
    assert content(workspace) == before
    with store.connect(workspace) as connected:  # and what was moved is still what was published
        assert read(runs[names[1]], workspace.root / "read", connected).run.name == names[1]


@pytest.mark.parametrize("rival_ends", [True, False])
def test_a_part_that_a_rival_is_publishing_waits_to_the_end(
    workspace: Workspace, client: MlflowClient, rival_ends: bool
) -> None:
    """It is published again only if the rival has not come to an end by then."""
    names = ("k_fold/mlp", "k_fold/mlp.fold_1", "k_fold/mlp.fold_2")
    rivals = tell(workspace, *names[:2])[1].run_id
    client.set_tag(rivals, integrity.PUBLISHED, f"elsewhere 1 {time.time():.0f}")
    runs_to_publish = [listing.find(workspace, name) for name in names]
    with store.connect(workspace) as connected:
        publications = publish.publish_all(runs_to_publish, CONTEXT, connected, workspace)
        assert [next(publications).name, next(publications).name] == [names[0], names[2]]
        if rival_ends:
            client.set_tag(rivals, integrity.PUBLISHED, integrity.COMPLETE)
        (last,) = publications
    assert (last.name, last.run_id == rivals) == (names[1], rival_ends)
    assert last.outcome == ("already there" if rival_ends else "published")


def test_name_of_an_experiment_goes_to_the_run_that_stays(
    workspace: Workspace, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The younger run is withdrawn by a rival between the look at it and the writing to it."""
    (older,) = tell(workspace, "mlp")
    client.delete_run(older.run_id)
    (younger,) = tell(workspace, "mlp")
    log_batch, requests = MlflowClient.log_batch, count()

    def withdraw_at_first(*arguments: Any, **options: Any) -> None:
        if next(requests) == 0:
            client.restore_run(older.run_id)
            client.delete_run(younger.run_id)
        log_batch(*arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", withdraw_at_first)
    (done,) = tell(workspace, "mlp", context=EXPERIMENT)
    assert (done.run_id, done.outcome) == (older.run_id, "already there")
    assert marks.experiments(the_run(workspace)) == ["puffy-hake"]


@pytest.mark.parametrize("refusals", [1, 2, 3])
def test_a_data_set_that_a_rival_told_of_first_is_told_of_again(
    workspace: Workspace, refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server looks for its rows, then writes them: between, other requests may have, of two."""
    log_inputs, requests = MlflowClient.log_inputs, count()

    def refuse_at_first(*arguments: Any) -> Any:
        if next(requests) < refusals:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed")
        return log_inputs(*arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", refuse_at_first)
    if refusals == 3:
        with pytest.raises(UserError, match="no result is lost"):
            tell(workspace, "mlp")
    else:
        tell(workspace, "mlp")
        assert len(the_run(workspace).inputs.dataset_inputs) == 2
