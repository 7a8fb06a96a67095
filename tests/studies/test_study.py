"""From models to runs: what is observed, summed up and laid over each other."""

import csv
import re
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from oracles import numbers
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.studies import house_prices, initialisation, k_fold, study, weight_decay
from refashion.studies.study import Measures, Trained
from refashion.training import digest
from refashion.training.initial import Weights
from refashion.training.loop import Model, Row
from refashion.training.settings import Settings

SETTINGS = Settings(lr=0.05, epochs=3, batch_size=4, num_inputs=3, num_outputs=1, loss="squared")


def model(seed: int = 0, n: int = 10, **changes: Any) -> Model:
    settings = replace(SETTINGS, seed=seed, **changes)
    train, validation = numbers(settings, n, seed), numbers(settings, 4)
    return Model(settings=settings, train=train, validation=validation)


def observe(row: Row, weights: Weights) -> Measures:
    assert row.weights_sha256 == digest.weights(weights)
    return {"loss": row.train_loss, "model": row.model}


def train(*models: Model, told: list[str] | None = None) -> Trained:
    notes = [] if told is None else told
    return study.train(models, "cpu", lambda amount=1, note="": notes.append(note), observe)


def of_rows(*rows: Sequence[Measures]) -> Trained:
    """Trainings of which nothing is known but what was observed."""
    return Trained(trainings=[], rows=rows, contract="")


def write(root: Path, name: str, trained: Trained, **changes: Any) -> Run:
    record: dict[str, Any] = {"data": {}, "inputs": {"train": "1" * 64}, "params": {"lr": 0.05}}
    study.write_run(Workspace(root), f"weight_decay/{name}", trained, **{**record, **changes})
    runs = {run.title: run for run in listing.of_study(Workspace(root), "weight_decay")}
    return runs[f"weight_decay/{name}"]


# --- training ---------------------------------------------------------------------------------


def test_every_epoch_of_every_model_is_observed_and_told() -> None:
    notes: list[str] = []
    trained = train(model(), model(1), model(2, epochs=5), told=notes)
    assert [len(rows) for rows in trained.rows] == [3, 3, 5]
    rows = [row for training in trained.trainings for row in training.history]
    observed = [row for rows in trained.rows for row in rows]
    assert observed == [{"loss": row.train_loss, "model": row.model} for row in rows]
    assert notes == [f"loss {row.train_loss:.3f}  accuracy nan" for row in rows]


def test_timings_of_trainings_one_after_another() -> None:
    parts = [train(model(), model(1)), train(model(1, epochs=2, n=20)), train(model(2, lr=1e38))]
    later = replace(parts[2], machine={**parts[2].machine, "started": "later"})
    whole = study.sum_up([*parts[:2], later])
    assert len({training.digest for training in whole.trainings}) == 4
    assert whole.trainings == [training for part in parts for training in part.trainings]
    assert whole.rows == [rows for part in parts for rows in part.rows]
    seconds = [part.timings["seconds_per_epoch"] for part in parts]
    assert [len(epochs) for epochs in seconds] == [3, 2, 0]
    assert whole.timings["seconds_per_epoch"] == pytest.approx(
        [seconds[0][0] + seconds[1][0], seconds[0][1] + seconds[1][1], seconds[0][2]]
    )
    assert whole.timings["seconds"] == pytest.approx(sum(map(sum, seconds)))
    rate = (2 * 3 * 10 + 2 * 20) / whole.timings["seconds"]
    assert whole.timings["images_per_second"] == pytest.approx(rate)
    assert parts[2].timings["images_per_second"] == 0.0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", whole.timings["started"])
    assert whole.timings["peak_memory_mib"] > 1 and whole.timings["device"] == "cpu"
    assert whole.timings["device_name"] and whole.timings["threads"] == torch.get_num_threads()


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8))
def test_mean_and_spread(values: list[float]) -> None:
    last = of_rows(*([{"x": 7.0}, {"x": value}] for value in values)).last_measures
    assert last["x"] == study.mean(values) == pytest.approx(statistics.fmean(values), rel=1e-14)
    assert study.mean(values[::-1]) == study.mean(values)
    spread = {"x_std": statistics.stdev(values)} if len(values) > 1 else {}  # of one there is none
    assert last == {"x": study.mean(values), **spread}


def test_means_epoch_by_epoch() -> None:
    first, second = [{"a": 1.0, "b": 0.0}, {"a": 5.0, "b": 2.0}], [{"a": 3.0, "b": 1.0}] * 2
    assert of_rows(first, second).mean_history == [{"a": 2.0, "b": 0.5}, {"a": 4.0, "b": 1.5}]


@pytest.mark.parametrize("module", [weight_decay, house_prices, initialisation, k_fold])
def test_torch_finds_nearly_the_same(module: ModuleType, tmp_path: Path) -> None:
    """Both engines in every study, by all that is measured; unless it is chaotic or rounding."""
    portable, native = (
        tiny.run(module, tiny.write_data(tmp_path / numerics), tiny.params(numerics=numerics))
        for numerics in ("portable", "native")
    )
    for name, run in native.runs.items():
        assert run.record.contract == "native/cpu"
        if name not in ("unit_normal", "constant"):
            assert portable.runs[name].metrics == pytest.approx(run.metrics, rel=1e-2)


# --- files ------------------------------------------------------------------------------------


def test_a_run_and_its_part(tmp_path: Path) -> None:
    trained, alone = train(model(), model(1)), train(model())
    run = write(tmp_path, "whole", trained)
    assert run.metrics == trained.last_measures
    assert run.history["loss"] == [row["loss"] for row in trained.mean_history]
    assert run.record.name == "weight_decay/whole" and run.record.experiment == "weight_decay"
    assert run.record.stage == "study@weight_decay" and run.record.parent is None
    assert run.record.folders == ("reports/studies/weight_decay/whole",)
    assert run.record.outputs["weights"] == trained.digest
    part = write(tmp_path, "part", alone, parent="weight_decay/whole", stage="other/dvc.yaml:other")
    assert part.record.parent == "weight_decay/whole"
    assert part.record.stage == "other/dvc.yaml:other"
    assert part.record.outputs["weights"] == alone.trainings[0].digest


def test_curves_are_histories_one_below_the_other(tmp_path: Path) -> None:
    """Of runs that sum up others alone; a run may lack a column, or have no epoch."""
    for name, history, parent in (
        ("zebra", [{"a": 1.0}, {"a": 2.0, "b": 3.0}], None),
        ("ape", [{"b": 4.0}], None),
        ("lost", [], None),
        ("zebra.fold_1", [{"a": 5.0}], "weight_decay/zebra"),
    ):
        write(tmp_path, name, train(model()), history=history, metrics={}, parent=parent)
    study.write_curves(Workspace(tmp_path), "weight_decay")
    file = Workspace(tmp_path).study_folder("weight_decay") / "curves.csv"
    assert list(csv.reader(file.open())) == [
        ["run", "epoch", "b", "a"],
        ["ape", "1", "4.0", ""],
        ["zebra", "1", "", "1.0"],
        ["zebra", "2", "3.0", "2.0"],
    ]
