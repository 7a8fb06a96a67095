"""Arms of studies are results: read from the study's files, published once, read back whole."""

import json
import runpy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mlflow.entities import Run

from refashion import studies
from refashion.base import files, paths
from refashion.base.errors import UserError
from refashion.data import made_up
from refashion.studies import house_prices, initialisation, k_fold, weight_decay
from refashion.studies.arm import Arm
from refashion.tracking import publish, results, runs, store
from refashion.tracking.context import Context
from refashion.tracking.publish import Publication
from refashion.tracking.results import ArmResults, Results
from refashion.tracking.store import Store

CONTEXT = Context(commit=None, diff=b"", experiment=None, baseline=None, environment="torch==1\n")
TINY = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "studies" / "tiny.py")))


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what studies leave besides their arms."""
    return tmp_path_factory.mktemp("further")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, further: Path) -> dict[str, list[Arm]]:
    """The arms of every study at its smallest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("houses")
    for name, text in made_up.tables().items():
        (folder / name).write_text(text)
    houses, submission = house_prices.run(TINY.HOUSES, folder, 0, "portable", "cpu")
    starts, gradients = initialisation.run(TINY.STARTS, TINY.images(), 0, "portable", "cpu")
    found = {
        "weight_decay": weight_decay.run(TINY.DECAY, 0, "portable", "cpu"),
        "house_prices": houses,
        "initialisation": starts,
        "k_fold": k_fold.run(2, TINY.VARIANTS, [TINY.images(40), TINY.images(20)], 0, "cpu"),
    }
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "STUDIES", further)
        submission.write(paths.submission("house_prices"))
        rows = map(astuple, gradients)
        header = ["arm", "depth", "layer", "norm"]
        files.write_csv(paths.gradients("initialisation"), header, rows)
    return found


@pytest.fixture(scope="module")
def saved(
    tmp_path_factory: pytest.TempPathFactory, trained: dict[str, list[Arm]], further: Path
) -> Path:
    """A checkout in which every study has run; to be read and not changed."""
    root = tmp_path_factory.mktemp("saved")
    for path in (paths.PARAMS, paths.ROOT / "dvc.yaml"):
        shutil.copyfile(path, root / path.name)
    shutil.copytree(further, root / "reports" / "studies")
    for study in studies.NAMES:
        TINY.save(root, study, trained[study])
    return root


@pytest.fixture(scope="module")
def own(saved: Path) -> list[Results]:
    return results.everything(saved, [], studies.NAMES)


# --- results ----------------------------------------------------------------------------------


def test_parents_come_first(saved: Path) -> None:
    names = [found.arm for found in results.arms(saved, "k_fold")]
    folds = [f"{variant}.fold_{i}" for variant in ("mlp", "softmax") for i in (1, 2)]
    assert names == ["mlp", "softmax", *folds]
    assert [a.arm for a in results.arms(saved, "weight_decay")] == ["decay_0", "decay_3"]
    parents = [found.parent for found in results.arms(saved, "k_fold")]
    assert parents == [None, None, *["k_fold/mlp"] * 2, *["k_fold/softmax"] * 2]


def test_a_study_that_has_not_run_has_no_arms(tmp_path: Path) -> None:
    assert [results.arms(tmp_path, study) for study in studies.NAMES] == [[]] * 4


def test_everything_is_variants_then_arms(saved: Path) -> None:
    found = results.everything(saved, ["mlp", "softmax"])
    assert [one.variant for one in found[:2]] == ["mlp", "softmax"]
    arms = [one.variant for study in studies.DEFAULT for one in results.arms(saved, study)]
    assert [one.variant for one in found[2:]] == arms and len(arms) == 2 + 2 + 5
    assert not any(isinstance(one, ArmResults) for one in found[:2])


@pytest.mark.parametrize("study", studies.NAMES)
def test_arms_read_back_as_they_were_trained(
    saved: Path, trained: dict[str, list[Arm]], study: str
) -> None:
    for expected in trained[study]:
        found = ArmResults(root=saved, variant=f"{study}/{expected.name}")
        epochs = range(1, len(expected.history) + 1)
        columns = {name: [row[name] for row in expected.history] for name in expected.history[0]}
        assert found.history == {"epoch": list(epochs), **columns}
        assert [row["epoch"] for row in found.rows] == [str(epoch) for epoch in epochs]
        assert found.metrics == expected.metrics
        assert found.settings == json.loads(json.dumps(expected.params))
        outputs = found.record["outputs"]
        assert found.history_digest == outputs["history"]
        assert set(outputs) == {"history", "weights", *expected.outputs}
        assert found.log is not None and found.log["weights"] == outputs["weights"]


def test_final_metrics_are_not_told_twice(own: list[Results]) -> None:
    for found in own:
        assert not set(found.final_metrics) & set(found.history)
        assert set(found.metrics) - set(found.history) == set(found.final_metrics)


def test_digests_tell_arms_apart(own: list[Results]) -> None:
    assert len({found.evaluation_digest for found in own}) == len(own)
    assert len({found.outputs_digest for found in own}) == len(own)
    again = [found.at(found.root) for found in own]
    assert [a.evaluation_digest for a in again] == [a.evaluation_digest for a in own]


def more(one: Results) -> list[str]:
    """Files of an arm besides its study's; a submission is the best model's alone."""
    names = {"gradients": "gradients.csv", "submission": "submission.csv"}
    return [name for output, name in names.items() if output in one.record["outputs"]]


def test_files_of_a_study(own: list[Results]) -> None:
    for one in own:
        assert [p.name for p in one.training_files] == ["record.json", "history.csv", *more(one)]
        assert (one.weights, one.answers) == (None, ())
        assert [p.name for p in one.cached] == [name for name in more(one) if "submission" in name]
    assert sum("submission.csv" in more(one) for one in own) == 1


def test_a_study_that_is_not_there_is_told(saved: Path) -> None:
    with pytest.raises(UserError, match=r"reports/studies/nothing/record\.json: missing"):
        _ = ArmResults(root=saved, variant="nothing/decay_7").record


def test_a_log_of_another_training_is_not_its_own(
    saved: Path, trained: dict[str, list[Arm]], tmp_path: Path
) -> None:
    root = shutil.copytree(saved, tmp_path / "checkout")
    first, second = trained["weight_decay"]
    TINY.save(tmp_path, "weight_decay", [first, replace(second, trainings=first.trainings)])
    shutil.copyfile(tmp_path / "logs/weight_decay.json", root / "logs/weight_decay.json")
    logs = [found.log for found in results.arms(root, "weight_decay")]
    assert logs[0] is not None and logs[1] is None


# --- publication ------------------------------------------------------------------------------


def tell(own: Sequence[Results], context: Context = CONTEXT) -> list[Publication]:
    with store.connect() as found:
        return list(publish.publish_all(own, context, found))


@pytest.fixture(scope="module")
def told(
    tmp_path_factory: pytest.TempPathFactory, empty_database: Path, own: list[Results]
) -> tuple[Path, dict[str, Publication]]:
    """A folder with a database that every arm was published to, to be copied; and what came."""
    folder = tmp_path_factory.mktemp("told")
    shutil.copyfile(empty_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MAIN_ROOT", folder)
        return folder, {done.variant: done for done in tell(own)}


@pytest.fixture
def connected(
    told: tuple[Path, dict[str, Publication]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """The store that holds every arm, to be read and not changed."""
    monkeypatch.setattr(paths, "MAIN_ROOT", told[0])
    with store.connect() as found:
        yield found


def published(connected: Store) -> dict[str, Run]:
    ids = [e.experiment_id for e in connected.client.search_experiments()]
    return {run.data.tags["variant"]: run for run in connected.client.search_runs(ids)}


def artifacts(run: Run) -> set[str]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}


def test_a_run_for_every_arm_in_the_experiment_of_its_study(
    connected: Store, own: list[Results], told: tuple[Path, dict[str, Publication]]
) -> None:
    assert {done.outcome for done in told[1].values()} == {"published"}
    found = published(connected)
    assert set(found) == {one.variant for one in own}
    for one in own:
        run = found[one.variant]
        study, name = one.variant.split("/")
        assert connected.client.get_experiment(run.info.experiment_id).name == study
        assert (run.info.run_name, run.info.status) == (name, "FINISHED")
        assert run.info.run_id == told[1][one.variant].run_id


def test_a_run_carries_its_arm(connected: Store, own: list[Results]) -> None:
    for one in own:
        run = published(connected)[one.variant]
        tags, record = run.data.tags, one.record
        expected = {
            **{"variant": one.variant, "numerics": "portable/2", "published": "complete"},
            **{"run_key": record["run_key"], "mlflow.source.name": f"stages/{one.experiment}.py"},
            **{"dataset_digest": next(iter(record["inputs"].values())), "device": "cpu"},
        }
        assert expected.items() <= tags.items()
        params = record["params"].items()
        expected = {k: v if isinstance(v, str) else json.dumps(v) for k, v in params}
        assert run.data.params == expected
        assert one.final_metrics.items() <= run.data.metrics.items()
        used = [i.dataset.digest for i in run.inputs.dataset_inputs]
        assert sorted(used) == sorted(v[:12] for v in record["inputs"].values())


def test_metrics_of_every_epoch(connected: Store, saved: Path) -> None:
    one = ArmResults(root=saved, variant="weight_decay/decay_3")
    run_id = published(connected)[one.variant].info.run_id
    for name, values in one.history.items():
        if name == "epoch":
            continue
        found = connected.client.get_metric_history(run_id, name)
        assert [(m.step, m.value) for m in found] == list(enumerate(values, start=1))


def test_files_and_pictures(connected: Store, own: list[Results]) -> None:
    common = {"record.json", "history.csv", "metrics.json", "params.yaml", "dvc.yaml"}
    common |= {"training_log.json", "environment.txt"}
    for one in own:
        study = one.experiment
        found = artifacts(published(connected)[one.variant])
        assert found == common | {*more(one)} | {f"figures/{study}.png"}


def test_folds_lie_under_their_variant(connected: Store, own: list[Results]) -> None:
    found = published(connected)
    for one in own:
        parent = found[one.parent].info.run_id if one.parent else None
        assert found[one.variant].data.tags.get("mlflow.parentRunId") == parent
    assert sum(one.parent is not None for one in own) == 4


# --- a second time ----------------------------------------------------------------------------


@pytest.fixture
def empty(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database of its own."""
    shutil.copyfile(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setattr(paths, "MAIN_ROOT", tmp_path)
    return tmp_path


def everything(connected: Store) -> dict[str, object]:
    return {variant: run.to_dictionary() for variant, run in published(connected).items()}


def test_publishing_twice_changes_nothing(
    connected: Store, own: list[Results], told: tuple[Path, dict[str, Publication]]
) -> None:
    """Not for an experiment that has not changed them either."""
    before = everything(connected)
    for context in (CONTEXT, replace(CONTEXT, experiment="puffy-hake", baseline="b" * 40)):
        again = list(publish.publish_all(own, context, connected))
        assert {done.outcome for done in again} == {"already there"}
        assert [done.run_id for done in again] == [told[1][one.variant].run_id for one in own]
    assert everything(connected) == before


@pytest.mark.usefixtures("empty")
def test_an_experiment_names_the_arms_it_made(saved: Path) -> None:
    tell(results.arms(saved, "weight_decay"), replace(CONTEXT, experiment="puffy-hake"))
    with store.connect() as found:
        names = [run.data.tags["dvc_exp"] for run in runs.find("puffy-hake", found)]
    assert names == ["puffy-hake"] * 2


def test_another_result_of_the_same_key_is_a_divergence(
    empty: Path, saved: Path, trained: dict[str, list[Arm]]
) -> None:
    first, second = trained["weight_decay"]
    before = tell(results.arms(saved, "weight_decay"))
    root = shutil.copytree(saved, empty / "checkout")
    other = replace(first, trainings=first.trainings[::-1])
    TINY.save(root, "weight_decay", [other, second])
    changed, same = tell(results.arms(root, "weight_decay"))
    assert (changed.outcome, changed.divergence_of) == ("divergence", before[0].run_id)
    assert (same.outcome, same.run_id) == ("already there", before[1].run_id)


def test_other_metrics_are_measured_anew(
    empty: Path, saved: Path, trained: dict[str, list[Arm]]
) -> None:
    first, second = trained["weight_decay"]
    before = tell(results.arms(saved, "weight_decay"))
    root = shutil.copytree(saved, empty / "checkout")
    TINY.save(root, "weight_decay", [replace(first, metrics={**first.metrics, "new": 0.5}), second])
    done = tell(results.arms(root, "weight_decay"))
    assert [one.outcome for one in done] == ["measured anew", "already there"]
    assert [one.run_id for one in done] == [one.run_id for one in before]
    with store.connect() as found:
        assert published(found)["weight_decay/decay_0"].data.metrics["new"] == 0.5


def test_folds_alone_have_no_run_above_them(empty: Path, saved: Path) -> None:
    (fold,) = [a for a in results.arms(saved, "k_fold") if a.arm == "mlp.fold_2"]
    tell([fold])
    with store.connect() as found:
        (run,) = published(found).values()
    assert run.info.run_name == "mlp.fold_2"
    assert "mlflow.parentRunId" not in run.data.tags


# --- read back --------------------------------------------------------------------------------


def test_read_back_as_it_was(connected: Store, own: list[Results], tmp_path: Path) -> None:
    for one in own:
        run = published(connected)[one.variant]
        found = runs.read(run, tmp_path / run.info.run_id, connected)
        assert isinstance(found, runs.PublishedArm)
        for what in ("record", "history", "metrics", "settings", "log", "parent", "stage"):
            assert getattr(found, what) == getattr(one, what), what
        assert found.evaluation_digest == one.evaluation_digest


@pytest.fixture
def run(empty: Path, saved: Path) -> Run:
    """A run whose artifacts can be altered."""
    tell(results.arms(saved, "weight_decay")[:1])
    with store.connect() as found:
        return published(found)["weight_decay/decay_0"]


def altered(run: Run, name: str, before: str, after: str, folder: Path) -> str:
    """What a reader is told when the first of these texts in an artifact is another."""
    file = Path(run.info.artifact_uri.removeprefix("file://")) / name
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after, 1))
    with store.connect() as found, pytest.raises(UserError) as caught:
        runs.read(run, folder / "run", found)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("history.csv", "decay_0,2,", "decay_0,2,1"),
        ("history.csv", "decay_0,3,", "decay_9,3,"),
        ("metrics.json", '"seeds": 2', '"seeds": 3'),
        ("record.json", '"seeds": 2', '"seeds": 3'),
        ("record.json", '"history": "', '"history": "0'),
        ("record.json", "{", ""),
    ],
)
def test_an_altered_artifact_is_refused(
    run: Run, tmp_path: Path, name: str, before: str, after: str
) -> None:
    said = altered(run, name, before, after, tmp_path)
    assert f"{run.info.run_id}: its artifact {name} was altered" in said


def test_a_missing_artifact_is_told(run: Run, tmp_path: Path) -> None:
    (Path(run.info.artifact_uri.removeprefix("file://")) / "history.csv").unlink()
    with store.connect() as found, pytest.raises(UserError, match=r"history\.csv is missing"):
        runs.read(run, tmp_path / "run", found)
