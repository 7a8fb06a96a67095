"""Sweeps at a small size: every trial as if alone, and one table however it was computed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
import torch

import oracles
import tiny
from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.base.params.sweeps import SweepParams
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.evaluation import metrics
from refashion.runs import listing
from refashion.runs.run import TRIALS
from refashion.studies import classifiers, executors, study, sweep, trials
from refashion.training import portable
from refashion.training.engine import Examples
from refashion.training.loop import Model
from refashion.training.settings import Settings

SPACE = {"lr": [0.05, 0.5], "seed": {"range": [0, 3]}, "weight_decay": [0.0, 0.1]}


def params(variant: str = "dropout", **changes: Any) -> Params:
    """Those of a small sweep named ``rates``."""
    definition = {"variant": variant, "space": SPACE, **changes}
    return tiny.params().model_copy(update={"sweeps": {"rates": SweepParams(**definition)}})


def run(root: Path, settings: Params, *execute: executors.Execute) -> dict[str, bytes]:
    """What a sweep leaves, by name."""
    workspace = tiny.write_data(root, test=30)
    sweep.run(workspace, settings, "rates", *execute)
    return read(workspace)


def read(workspace: Workspace) -> dict[str, bytes]:
    files = sorted(workspace.study_folder("rates").glob("*/*"))
    return {f"{file.parent.name}/{file.name}": file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = tiny.write_data(tmp_path_factory.mktemp("sweep"), test=30)
    sweep.run(workspace, params(), "rates")
    return workspace


def test_every_trial_is_the_variant_with_its_settings(workspace: Workspace) -> None:
    whole, *runs = listing.of_study(workspace, "rates")
    assert len(runs) == 12 and {run.record.parent for run in runs} == {whole.name}
    examples = study.examples(study.splits(workspace)[0])
    for row, run in zip(whole.table(TRIALS), runs, strict=True):
        settings = replace(
            classifiers.settings(params(), "dropout"),
            **{name: type(getattr(Settings(), name))(row[name]) for name in SPACE},
        )
        assert run.record.params == settings.as_dict()
        model = Model(settings=settings, **examples)
        (alone,) = oracles.train(model)
        assert run.record.outputs["weights"] == row["weights_sha256"] == alone.digest
        assert run.metrics["validation_accuracy"] == alone.history[-1].validation_accuracy
        assert float(row["validation_loss"]) == alone.history[-1].validation_loss


def test_the_best_by_validation_is_measured_on_the_test_set(workspace: Workspace) -> None:
    whole, *runs = listing.of_study(workspace, "rates")
    best = max(
        runs, key=lambda r: (r.metrics["validation_accuracy"], -r.metrics["validation_loss"])
    )
    assert runs.index(best) + 1 == whole.metrics["best_trial"]
    assert whole.rows == best.rows and whole.metrics["trials"] == 12
    settings = Settings(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in best.record.params.items()}
    )
    split, test = prepared.load(workspace.train), prepared.load(workspace.test)
    examples = Examples.of_images(split.images, split.labels)
    model = Model(settings=settings, train=examples, validation=examples)
    (training,) = oracles.train(model)
    outputs = portable.outputs(training.weights, torch.from_numpy(np.array(test.images)))
    labels = torch.from_numpy(test.labels.astype(np.int64))
    expected = metrics.evaluate(outputs, labels, [str(i) for i in range(10)]).metrics
    assert whole.metrics["test_accuracy"] == expected["test_accuracy"]


def test_native_trainings_stay_in_this_process(tmp_path: Path) -> None:
    """Their bits depend on threads, which processes share, and on the machine."""
    native = params().model_copy(update={"numerics": "native"})
    with pytest.raises(UserError, match=r"^sweeps\.rates: numerics: native has other bits "):
        run(tmp_path, native, partial(executors.in_processes, 2))


def test_no_more_processes_than_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(joblib, "parallel_config", lambda *_, n_jobs, **__: counts.append(n_jobs))
    monkeypatch.setattr(trials, "train", lambda *_: [])
    settings = [Settings(seed=seed, epochs=seed) for seed in (1, 2, 3)]
    for number in (0, 1):
        done = executors.in_processes(40, settings[:number], {}, "cpu", lambda *_: None)
        assert len(list(done)) == number
    with pytest.raises(TypeError, match="context manager"):
        list(executors.in_processes(40, settings, {}, "cpu", lambda *_: None))
    assert counts == [3]


@pytest.mark.ci
@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_processes_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    """Nobody would have their results."""
    workspace = tiny.write_data(tmp_path, test=30)
    code = (
        "from functools import partial; from pathlib import Path; import test_sweep as t;"
        "e = partial(t.executors.in_processes, 2); w = t.Workspace(Path.cwd());"
        "t.sweep.run(w, t.params().model_copy(update={'epochs': 10**6}), 'rates', e)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(tiny.__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=workspace.root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([path, *sys.path])},
        start_new_session=True,
    ) as driver:
        try:
            own = psutil.Process(driver.pid)
            patience = time.monotonic() + 60
            while len(busy := [p for p in own.children() if p.cpu_times().user > 5]) < 2:
                assert driver.poll() is None and time.monotonic() < patience
                time.sleep(0.2)
            driver.kill()
            gone, alive = psutil.wait_procs(busy, timeout=20)
            assert len(gone) == 2, alive
        finally:
            with suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)


@pytest.mark.ci
def test_processes_tell_of_every_epoch_while_they_train(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a trial whose results are not there yet, too."""
    monkeypatch.setattr(trials, "LARGEST_STACK", 1)
    splits, _ = study.splits(workspace)
    told: list[str] = []
    base = classifiers.settings(params(), "dropout")
    few = [replace(base, epochs=5, lr=lr) for lr in (0.1, 0.2, 0.3)]
    done = executors.in_processes(2, few, splits, "cpu", lambda *_: told.append("epoch"))
    told += ["results" for _ in done]
    assert told.count("epoch") == 15 and told.count("results") == 3
    assert "epoch" in told[:1]


@pytest.mark.parametrize("stacks", [0, 1, 2])
def test_a_sweep_that_was_interrupted_goes_on(
    workspace: Workspace, tmp_path: Path, stacks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "LARGEST_STACK", 4)
    trained: list[Settings] = []

    def interrupted(
        settings: Sequence[Settings], *rest: Any, most: float = float("inf")
    ) -> executors.Finished:
        for number, done in enumerate(executors.in_this_process(settings, *rest)):
            if number == most:
                raise KeyboardInterrupt
            trained.extend(done[0])
            yield done

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, params(), partial(interrupted, most=stacks))
    assert len(trained) == stacks * 4
    assert run(tmp_path, params(), interrupted) == read(workspace)
    assert len(trained) == 12 == len(set(trained))


def test_a_trial_that_diverges_ends_alone(tmp_path: Path) -> None:
    files = run(tmp_path, params(space={"lr": [1e38, 0.5]}))
    assert json.loads(files["dropout.trial_1/metrics.json"]) == {"diverged_in_epoch": 1}
    diverged, well = files["dropout/trials.csv"].decode().splitlines()[1:]
    assert diverged.startswith("1,1e+38,,,,,") and well.startswith("2,0.5,0.")
    assert json.loads(files["dropout/metrics.json"])["best_trial"] == 2
    with pytest.raises(UserError, match=r"sweeps\.rates: every trial diverged"):
        run(tmp_path, params(space={"lr": [1e38, 2e38]}))


@pytest.mark.parametrize("search", ["random", "tpe", "halving"])
def test_every_search_gives_the_same_table_again(search: str, tmp_path: Path) -> None:
    space = {"lr": {"log": [0.01, 0.9]}, "hidden": [[4], [6], [9]]}
    changes = {"search": search, "trials": 9, "space": space}
    first = run(tmp_path / "a", params(**changes).model_copy(update={"epochs": 4}))
    again = run(
        tmp_path / "b",
        params(**changes).model_copy(update={"epochs": 4}),
        partial(executors.in_processes, 2),
    )
    assert first == again
    epochs = [row.split(",")[3] for row in first["dropout/trials.csv"].decode().splitlines()[1:]]
    assert epochs == ["1"] * 9 + ["4"] * 3 if search == "halving" else len(epochs) <= 9


def test_a_best_trial_that_does_not_come_out_again_is_refused(tmp_path: Path) -> None:
    def forged(*arguments: Any) -> executors.Finished:
        for stack, results in executors.in_this_process(*arguments):
            for result in results:
                result["history"][-1]["weights_sha256"] = "0" * 64
            yield stack, results

    with pytest.raises(UserError, match="came out otherwise when it was trained again"):
        run(tmp_path, params(), forged)


def test_without_validation_images_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds out no image"):
        sweep.run(tiny.write_data(tmp_path, 50, 0), params(), "rates")


def test_stacks_give_every_process_as_many_trials_and_fit_in_memory() -> None:
    small = [Settings(lr=lr, seed=seed) for lr in (0.1, 0.2, 0.3) for seed in range(20)]
    for processes in (1, 2, 3, 16, 99):
        divided = trials.stacks(small, processes)
        assert sorted(s.lr for stack in divided for s in stack) == sorted(s.lr for s in small)
        assert max(map(len, divided)) == min(-(-60 // processes), trials.LARGEST_STACK)
    for large in ({"hidden": (4096,) * 10}, {"hidden": (1024,), "batch_size": 60_000}):
        two = [Settings(**large, lr=lr) for lr in (0.1, 0.2)]
        assert [len(stack) for stack in trials.stacks(two, 1)] == [1, 1]
    mixed = trials.stacks([Settings(epochs=1), Settings(epochs=2), Settings(hidden=(2,))], 1)
    assert len(mixed) == 3
