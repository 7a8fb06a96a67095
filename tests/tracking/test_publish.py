"""Every result gets to MLflow once, whoever publishes it, and whole."""

import dataclasses
import json
import math
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from refashion.base import files
from refashion.base.errors import UserError
from refashion.tracking import publish, store
from refashion.tracking.context import Context
from refashion.tracking.results import Results

VARIANTS = ("softmax", "mlp", "dropout")
CONTEXT = Context(
    commit="c" * 40, diff=b"a diff\n", experiment=None, baseline=None, environment="torch==1\n"
)
EXPERIMENT = Context(
    commit="c" * 40, diff=b"", experiment="puffy-hake", baseline="b" * 40, environment=""
)


def tell(root: Path, variant: str = "mlp", context: Context = CONTEXT) -> publish.Publication:
    with store.connect() as found:
        return publish.publish(Results(root=root, variant=variant), context, found)


def runs(uri: str = "") -> list[Run]:
    client = MlflowClient(tracking_uri=uri or store.default())
    experiments = [e.experiment_id for e in client.search_experiments()]
    return client.search_runs(experiments)


def artifacts(root: Path, run_id: str) -> set[str]:
    folder = root / "mlflow-artifacts" / "fashion_mnist" / run_id / "artifacts"
    return {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}


def everything(root: Path) -> dict[str, object]:
    found: dict[str, object] = {run.info.run_id: run.to_dictionary() for run in runs()}
    files = (root / "mlflow-artifacts").rglob("*")
    return found | {str(f): f.read_bytes() for f in files if f.is_file()}


def test_run_carries_everything(checkout: Path) -> None:
    (checkout / "dvc.lock").write_text("schema: '2.0'\n")
    done = tell(checkout)
    assert (done.outcome, done.variant, done.divergence_of) == ("published", "mlp", None)
    client = MlflowClient(tracking_uri=store.default())
    run = client.get_run(done.run_id)
    record = json.loads((checkout / "models/mlp/record.json").read_text())

    assert client.get_experiment(run.info.experiment_id).name == "fashion_mnist"
    assert (run.info.run_name, run.info.status) == ("mlp", "FINISHED")
    assert run.info.start_time == 1706933106000
    assert run.info.end_time - run.info.start_time == 9000

    params = run.data.params
    assert (params["hidden"], params["lr"], params["seed"]) == ("[256]", "0.1", "0")
    assert params["numerics"] == record["params"]["numerics"]
    assert (params["data.dataset"], params["data.limit"]) == ("fashion_mnist", "null")
    assert set(params) == set(record["params"]) | {
        f"data.{name}" for name in ("dataset", "limit", "validation", "seed")
    }

    losses = client.get_metric_history(done.run_id, "validation_loss")
    assert [(m.step, m.value) for m in losses] == [(e, 1.1 / e) for e in (1, 2, 3, 4)]
    assert [m.timestamp - run.info.start_time for m in losses] == [3000, 5000, 7000, 8000]
    metrics = run.data.metrics
    assert metrics["test_accuracy"] == pytest.approx(1 - 9 / 60)
    assert metrics["test_cross_entropy_nats"] == 0.5
    assert metrics["test_f1/T-shirt_top"] == 0.85
    assert (metrics["seconds_per_epoch"], metrics["images_per_second"]) == (2.0, 60.5)
    assert "peak_memory_mib" not in metrics
    assert not any("sha256" in name for name in metrics)

    tags = run.data.tags
    expected = {
        **{"run_key": record["run_key"], "variant": "mlp", "numerics": "native/cpu"},
        **{"git_commit": "c" * 40, "git_dirty": "true", "mlflow.source.git.commit": "c" * 40},
        **{"dataset_digest": record["inputs"]["train"], "published": "complete"},
        **{"device": "cpu", "device_name": "A Processor", "threads": "2", "torch": "2.9.0"},
    }
    assert expected.items() <= tags.items()
    assert not {"dvc_exp", "dvc_exp_baseline", "divergence_of"} & set(tags)

    used = {i.tags[0].value: i.dataset for i in run.inputs.dataset_inputs}
    assert set(used) == {"training", "validation", "testing"}
    assert used["training"].name == "fashion_mnist"
    assert record["inputs"]["train"].startswith(used["training"].digest)
    assert json.loads(used["testing"].profile) == {"num_rows": 60}

    pictures = ("learning_curves", "confusion_matrix", "predictions", "first_layer")
    assert artifacts(checkout, done.run_id) == {
        *("record.json", "weights.safetensors", "history.csv", "metrics.json", "predictions.csv"),
        *("calibration.csv", "params.yaml", "dvc.yaml", "dvc.lock", "training_log.json"),
        *("uncommitted.diff", "environment.txt"),
        *(f"figures/{name}.png" for name in (*pictures, "confident_mistakes")),
    }


def test_publishing_twice_changes_nothing(checkout: Path) -> None:
    first = [tell(checkout, variant).run_id for variant in VARIANTS]
    assert len(set(first)) == 3
    before = everything(checkout)
    again = [tell(checkout, variant) for variant in VARIANTS]
    assert [done.run_id for done in again] == first
    assert {done.outcome for done in again} == {"already there"}
    assert everything(checkout) == before


def test_nothing_is_drawn_for_what_is_there(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(checkout)
    monkeypatch.setattr("refashion.tracking.contents.draw", pytest.fail)
    assert tell(checkout).outcome == "already there"


def test_names_of_experiments_add_up(checkout: Path) -> None:
    run_id = tell(checkout).run_id
    for name in ("puffy-hake", "b", "puffy-hake"):
        context = Context(commit=None, diff=b"", experiment=name, baseline="b", environment="")
        assert tell(checkout, context=context).outcome == "already there"
    (run,) = runs()
    assert run.info.run_id == run_id
    assert run.data.tags["dvc_exp"] == "puffy-hake,b"
    assert run.data.tags["git_commit"] == "c" * 40


def test_experiment_of_a_new_run(checkout: Path) -> None:
    tell(checkout, context=EXPERIMENT)
    (run,) = runs()
    assert run.data.tags["dvc_exp"] == "puffy-hake"
    assert run.data.tags["dvc_exp_baseline"] == "b" * 40
    assert run.data.tags["git_dirty"] == "false"
    assert "uncommitted.diff" not in artifacts(checkout, run.info.run_id)


def test_result_without_log_claims_no_hardware(checkout: Path) -> None:
    shutil.rmtree(checkout / "logs")
    tell(checkout)
    (run,) = runs()
    assert not {"device", "device_name", "torch"} & set(run.data.tags)
    assert not {"seconds_per_epoch", "images_per_second"} & set(run.data.metrics)
    assert run.info.start_time == run.info.end_time
    assert run.data.metrics["train_loss"] == 0.25


def test_other_outputs_of_the_same_key_are_a_divergence(
    checkout: Path, made_up: SimpleNamespace
) -> None:
    first = tell(checkout)
    made_up.write_results(checkout, mlp="another outcome")
    second = tell(checkout)
    assert second.outcome == "divergence"
    assert second.divergence_of == first.run_id
    by_id = {run.info.run_id: run.data.tags for run in runs()}
    assert by_id[second.run_id]["divergence_of"] == first.run_id
    assert by_id[second.run_id]["run_key"] == by_id[first.run_id]["run_key"]
    assert by_id[second.run_id]["result"] != by_id[first.run_id]["result"]
    again = tell(checkout)
    assert (again.outcome, again.run_id) == ("already there", second.run_id)
    assert again.divergence_of == first.run_id
    made_up.write_results(checkout)
    back = tell(checkout)
    assert (back.outcome, back.run_id) == ("already there", first.run_id)


def test_another_evaluation_refreshes_the_run(checkout: Path, made_up: SimpleNamespace) -> None:
    first = tell(checkout)
    made_up.write_evaluation(checkout, "mlp", wrong=30)
    assert tell(checkout, context=EXPERIMENT).outcome == "measured anew"
    (run,) = runs()
    assert run.info.run_id == first.run_id
    assert run.data.metrics["test_accuracy"] == 0.5
    folder = checkout / "mlflow-artifacts" / "fashion_mnist" / first.run_id / "artifacts"
    assert json.loads((folder / "metrics.json").read_text())["accuracy"] == 0.5
    assert (folder / "uncommitted.diff").read_bytes() == CONTEXT.diff
    assert tell(checkout).outcome == "already there"


def test_refresh_that_was_interrupted_is_done_again(
    checkout: Path, made_up: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(checkout)
    made_up.write_evaluation(checkout, "mlp", wrong=30)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "log_batch", interrupt)
        tell(checkout)
    assert tell(checkout).outcome == "measured anew"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("step", ["log_batch", "log_artifacts", "set_terminated", "set_tag"])
def test_interrupted_publication_is_done_anew(
    checkout: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, step, interrupt)
        tell(checkout)
    (unfinished,) = runs()
    done = tell(checkout)
    assert done.outcome == "published"
    (run,) = runs()
    assert run.info.run_id == done.run_id != unfinished.info.run_id


def test_broken_result_leaves_no_run(checkout: Path) -> None:
    (checkout / "reports/evaluation/mlp/predictions.csv").unlink()
    with pytest.raises(UserError, match=r"predictions\.csv: missing"):
        tell(checkout)
    assert runs() == []


def test_training_that_diverged_is_published(checkout: Path) -> None:
    file = checkout / "models/mlp/history.csv"
    header = ["epoch", "train_loss", "train_accuracy", "weights_sha256"]
    rows = [[1, math.inf, 0.1, "a"], [2, math.nan, 0.1, "b"], [3, math.nan, 0.1, "b"]]
    files.write_csv(file, header, rows)
    (checkout / "logs" / "mlp.json").unlink()
    assert tell(checkout).outcome == "published"
    (run,) = runs()
    assert math.isnan(run.data.metrics["train_loss"])


def test_run_that_somebody_else_tagged_is_left_alone(checkout: Path) -> None:
    client = MlflowClient(tracking_uri=store.default())
    key = json.loads((checkout / "models/mlp/record.json").read_text())["run_key"]
    experiment = client.create_experiment("fashion_mnist", (checkout / "own").as_uri())
    client.create_run(experiment, tags={"run_key": key})
    assert tell(checkout).outcome == "published"
    assert len(runs()) == 2


def test_deleted_experiment_is_told(checkout: Path) -> None:
    tell(checkout)
    client = MlflowClient(tracking_uri=store.default())
    client.delete_experiment(runs()[0].info.experiment_id)
    with pytest.raises(UserError, match=r"'fashion_mnist': was deleted .* restore -x 1`"):
        tell(checkout)


def test_deleted_run_is_published_again(checkout: Path) -> None:
    first = tell(checkout).run_id
    MlflowClient(tracking_uri=store.default()).delete_run(first)
    second = tell(checkout)
    assert second.outcome == "published"
    assert second.run_id != first


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, made_up: SimpleNamespace
) -> Iterator[str]:
    """Serve a database of its own."""
    database = tmp_path_factory.mktemp("server") / "mlflow.db"
    shutil.copyfile(empty_database, database)
    with made_up.serving(database) as address:
        yield address


@pytest.fixture(scope="module")
def postgres(made_up: SimpleNamespace) -> Iterator[str]:
    """Run PostgreSQL, where Debian's is installed."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        become = []
        if os.geteuid() == 0:  # which it refuses to run as
            shutil.chown(folder, "postgres")
            become = ["runuser", "-u", "postgres", "--"]
        data, port = f"{folder}/data", made_up.free_port()

        def run(program: str, *arguments: str) -> None:
            command = [*become, str(binaries[-1] / program), "-D", data, *arguments]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)

        run("initdb", "--auth=trust", "--username=tester", "--no-sync")
        options = f"-F -p {port} -k {folder} -h 127.0.0.1"
        run("pg_ctl", "-w", "-l", f"{folder}/log", "-o", options, "start")
        address = f"postgresql://tester@127.0.0.1:{port}/postgres"
        try:
            MlflowClient(tracking_uri=address).search_experiments()  # makes MLflow's tables
            yield address
        finally:
            run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(params=["SQLite", "server", "postgres"])
def uri(request: pytest.FixtureRequest, checkout: Path) -> Iterator[str]:
    """Give a database or a server with no run in it."""
    if request.param == "SQLite":
        yield f"sqlite:///{checkout / 'mlflow.db'}"
        return
    address = request.getfixturevalue(request.param)
    yield address
    client = MlflowClient(tracking_uri=address)
    for run in runs(address):
        client.delete_run(run.info.run_id)


def outcomes(processes: list[Callable[[], tuple[str, str]]]) -> list[list[str]]:
    lines = []
    for process in processes:
        output, errors = process()
        assert output, errors
        lines += [line.split("\t") for line in output.splitlines()]
    return lines


def test_parallel_publishers_lose_nothing_and_repeat_nothing(
    uri: str, checkout: Path, tmp_path: Path, made_up: SimpleNamespace
) -> None:
    """Twice as many processes as results, each with the name of its experiment."""
    num_results = 4 if uri.startswith("sqlite") else 2
    checkouts = []
    for i in range(num_results):
        root = shutil.copytree(checkout, tmp_path / str(i), ignore=shutil.ignore_patterns("*.db"))
        text = (root / "params.yaml").read_text().replace("seed: 0  ", f"seed: {i}  ", 1)
        (root / "params.yaml").write_text(text)
        made_up.write_results(root)
        checkouts.append(root)
    started = [
        made_up.publisher(
            *(checkouts[i % num_results], "softmax"),
            **{"MLFLOW_TRACKING_URI": uri, "DVC_EXP_NAME": f"e{i}"},
            # Eight processes on few cores: patience is not what is tested here.
            **{"MLFLOW_HTTP_REQUEST_TIMEOUT": "120"},
        )
        for i in range(2 * num_results)
    ]
    told = outcomes([process.communicate for process in started])
    assert len(told) == 2 * num_results
    found = runs(uri)
    assert len(found) == num_results
    names = sorted(n for run in found for n in run.data.tags["dvc_exp"].split(","))
    assert names == [f"e{i}" for i in range(2 * num_results)]
    for run in found:
        assert run.data.tags["published"] == "complete"
        assert run.info.status == "FINISHED"
        assert len(run.data.metrics) == 22
    again = made_up.publisher(checkouts[0], "softmax", MLFLOW_TRACKING_URI=uri)
    assert [outcome for _, outcome, _ in outcomes([again.communicate])] == ["already there"]


@pytest.mark.parametrize("attempt", range(3))  # which of two runs is first is chance
def test_publishers_that_could_not_see_each_other_agree(
    attempt: int, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server: both looked before either had made its run."""
    tell(checkout, context=EXPERIMENT)
    found, looks = publish._find, []

    def blind_at_first(*arguments: Any) -> tuple[list[Run], list[Run]]:
        looks.append(arguments)
        return ([], []) if len(looks) == 1 else found(*arguments)

    monkeypatch.setattr(publish, "_find", blind_at_first)
    second = dataclasses.replace(EXPERIMENT, experiment="a second")
    with store.connect() as connected:
        unlocked = dataclasses.replace(connected, lock=None)
        done = publish.publish(Results(root=checkout, variant="mlp"), second, unlocked)
    (run,) = runs()
    assert run.info.run_id == done.run_id
    assert set(run.data.tags["dvc_exp"].split(",")) == {"puffy-hake", "a second"}


@pytest.mark.parametrize(
    ("refusal", "times", "lost"),
    [
        ("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name", 3, False),
        ("(psycopg2.IntegrityError) duplicate key", publish.ATTEMPTS, True),
        ("Invalid dataset", 1, True),
    ],
)
@pytest.mark.parametrize("name", ["log_inputs", "set_tag"])
def test_a_row_that_a_rival_wrote_first_is_asked_for_again(
    name: str,
    refusal: str,
    times: int,
    lost: bool,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server looks for a row, then writes it: between the two, another request may have."""
    tell(checkout, "softmax")
    ask, refused = getattr(MlflowClient, name), []

    def refuse_at_first(*arguments: Any) -> Any:
        if len(refused) < times and (name != "set_tag" or arguments[2] == "dvc_exp"):
            refused.append(arguments)
            raise MlflowException(f"BAD_REQUEST: {refusal}")
        return ask(*arguments)

    monkeypatch.setattr(MlflowClient, name, refuse_at_first)
    variant = "softmax" if name == "set_tag" else "mlp"
    if lost:
        with pytest.raises(UserError, match="no result is lost"):
            tell(checkout, variant, EXPERIMENT)
    else:
        tell(checkout, variant, EXPERIMENT)
        (run,) = [run for run in runs() if run.info.run_name == variant]
        assert run.inputs.dataset_inputs
        assert name == "log_inputs" or run.data.tags["dvc_exp"] == "puffy-hake"
    assert len(refused) == times


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
def test_abandoned_publications(publisher: str, abandoned: bool) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    mark = publisher.format(
        **{"host": socket.gethostname(), "own": os.getpid(), "dead": process.pid},
        **{"now": int(time.time()), "long_ago": int(time.time()) - publish.PATIENCE - 1},
    )
    assert publish._abandoned(mark) is abandoned


def test_killed_publisher_is_replaced(uri: str, checkout: Path, made_up: SimpleNamespace) -> None:
    killed = made_up.publisher(checkout, "mlp", MLFLOW_TRACKING_URI=uri, DIE_AT="log_artifacts")
    assert killed.wait() == -9
    (unfinished,) = runs(uri)
    assert unfinished.data.tags["published"] != "complete"
    next_one = made_up.publisher(checkout, "mlp", MLFLOW_TRACKING_URI=uri)
    (told,) = outcomes([next_one.communicate])
    assert told[1] == "published"
    assert [run.info.run_id for run in runs(uri)] == [told[2]]


def test_server_keeps_the_artifacts(
    server: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    run_id = tell(checkout).run_id
    assert tell(checkout).outcome == "already there"
    client = MlflowClient(tracking_uri=server)
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"record.json", "weights.safetensors", "figures"} <= names
    assert not (checkout / "mlflow-artifacts").exists()
    client.delete_run(run_id)
