"""What a study leaves on disk: canonical, complete, the same every time."""

import csv
import hashlib
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refashion.base import paths
from refashion.portable import streams
from refashion.studies import arm, history
from refashion.studies.arm import Arm, Trainer
from refashion.studies.history import Row
from refashion.training import digest, loop
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Epoch, Training
from refashion.training.settings import Settings

SETTINGS = Settings(
    hidden=(),
    dropout=(),
    lr=0.05,
    seed=0,
    epochs=3,
    batch_size=4,
    weight_decay=0.0,
    momentum=0.0,
    numerics="portable",
    num_inputs=3,
    num_outputs=1,
    loss="squared",
)
STUDY = "weight_decay"


def examples(seed: int, n: int) -> Examples:
    inputs = streams.normal((n, 3), streams.key(seed, streams.Purpose.SELFTEST))
    return Examples(inputs=inputs.to(torch.float32), targets=inputs[:, :1] - inputs[:, 1:2])


def observe(model: int, epoch: Epoch, weights: Weights) -> Row:
    return {"loss": epoch.train_loss, "norm": epoch.weight_norm, "model": float(model)}


def run(count: int = 2, first: int = 0) -> tuple[list[Training], list[list[Row]]]:
    models = [replace(SETTINGS, seed=first + i) for i in range(count)]
    data = [(examples(i, 10), examples(i + 50, 4)) for i in range(count)]
    with Trainer(STUDY, count) as trainer:
        return trainer.train(models, data, "cpu", observe)


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and logs in a folder of their own."""
    monkeypatch.setattr(paths, "STUDIES", tmp_path / "studies")
    monkeypatch.setattr(paths, "LOGS", tmp_path / "logs")
    return tmp_path


def arms() -> list[Arm]:
    both, rows = run()
    (third,), (own,) = run(1, first=7)
    params = SETTINGS.as_dict()
    first = Arm(
        name="zebra",  # names are sorted in JSON, not in the history
        params={**params, "seeds": 2},
        inputs={"train": "1" * 64, "test": "2" * 64},
        trainings=both,
        history=arm.over(rows),
        metrics={"seeds": 2, **arm.last(rows)},
        outputs={"gradients": "3" * 64},
    )
    second = Arm(
        name="ape",
        params=params,
        inputs={"train": "1" * 64},
        trainings=[third],
        history=[{"loss": own[0]["loss"]}, {"loss": own[1]["loss"], "other": 0.1}],
        metrics={"loss": own[1]["loss"]},
        parent="zebra",
    )
    return [first, second]


# --- training ---------------------------------------------------------------------------------


def test_every_epoch_of_every_model_is_observed() -> None:
    trainings, rows = run(3)
    assert len(rows) == 3 and len({digest.weights(t.weights) for t in trainings}) == 3
    for i, (training, own) in enumerate(zip(trainings, rows, strict=True)):
        assert own == [observe(i, epoch, training.weights) for epoch in training.history]


def test_observers_see_the_weights_after_the_epoch() -> None:
    seen: list[str] = []

    def look(model: int, epoch: Epoch, weights: Weights) -> Row:
        seen.append(digest.weights(weights))
        return {}

    with Trainer(STUDY, 1) as trainer:
        data = [(examples(0, 10), examples(1, 4))]
        (training,), rows = trainer.train([SETTINGS], data, "cpu", look)
    assert seen == [epoch.weights_sha256 for epoch in training.history]
    assert rows == [[{}, {}, {}]]


def test_progress_is_one_line_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Trainer(STUDY, 4) as trainer:
        for _ in range(2):
            trainer.train([SETTINGS] * 2, [(examples(0, 9), examples(1, 2))] * 2, "cpu", observe)
    said = capsys.readouterr().err
    assert said == f"\r{STUDY}  training 2 of 4\r{STUDY}  training 4 of 4\n"


def test_progress_is_silent_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert capsys.readouterr() == ("", "")


# --- means and spreads ------------------------------------------------------------------------

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8)


@given(values=NUMBERS)
def test_mean_and_spread(values: list[float]) -> None:
    found = arm.spread("x", values)
    assert found["x"] == arm.mean(values) == pytest.approx(statistics.fmean(values), rel=1e-14)
    assert arm.mean(values[::-1]) == arm.mean(values)
    if len(values) > 1:
        assert found["x_deviation"] == statistics.stdev(values)
    assert list(found) == ["x", "x_deviation"][: len(values)]


def test_means_epoch_by_epoch() -> None:
    rows = [[{"a": 1.0, "b": 0.0}, {"a": 5.0, "b": 2.0}], [{"a": 3.0, "b": 1.0}] * 2]
    assert arm.over(rows) == [{"a": 2.0, "b": 0.5}, {"a": 4.0, "b": 1.5}]
    found = arm.last(rows)
    assert list(found) == ["a", "a_deviation", "b", "b_deviation"]
    assert (found["a"], found["b"]) == (4.0, 1.5)
    assert found["a_deviation"] == pytest.approx(2**0.5)


def test_one_training_has_no_spread() -> None:
    assert arm.last([[{"a": 1.0}, {"a": 5.0}]]) == {"a": 5.0}


# --- files ------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    """Read JSON, and hold it to its canonical form."""
    text = path.read_text()
    found = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True) + "\n"
    return found


def test_history_reads_back(folders: Path) -> None:
    saved = arms()
    arm.save(STUDY, saved)
    content = paths.study_history(STUDY).read_bytes()
    assert b"\r" not in content and content.endswith(b"\n")
    header, *lines = csv.reader(content.decode().splitlines())
    assert header == ["arm", "epoch", "loss", "norm", "model", "other"]
    found: dict[str, list[Row]] = {}
    for name, epoch, *cells in lines:
        row = {k: float(x) for k, x in zip(header[2:], cells, strict=True) if x}
        found.setdefault(name, []).append(row)
        assert int(epoch) == len(found[name])
    assert found == {own.name: list(own.history) for own in saved}
    assert list(found) == ["zebra", "ape"]


def test_record(folders: Path) -> None:
    saved = arms()
    arm.save(STUDY, saved)
    found = read(paths.study_record(STUDY))
    assert set(found) == {"ape", "zebra"}
    for own in saved:
        determined = {
            "arm": own.name,
            "contract": "portable/2",
            "inputs": own.inputs,
            "params": own.params,
            "study": STUDY,
        }
        if own.parent:
            determined["parent"] = "zebra"
        digests = "\n".join(digest.weights(training.weights) for training in own.trainings)
        numbered = [{"epoch": float(i), **row} for i, row in enumerate(own.history, start=1)]
        rows = json.dumps(numbered, sort_keys=True)
        compact = json.dumps(determined, sort_keys=True, separators=(",", ":"))
        assert found[own.name] == {
            **determined,
            "outputs": {
                "history": hashlib.sha256(rows.encode()).hexdigest(),
                "weights": hashlib.sha256(digests.encode()).hexdigest(),
                **own.outputs,
            },
            "run_key": hashlib.sha256(compact.encode()).hexdigest(),
        }


def test_metrics(folders: Path) -> None:
    saved = arms()
    arm.save(STUDY, saved)
    assert read(paths.study_metrics(STUDY)) == {own.name: own.metrics for own in saved}


def test_timings_go_to_the_log_alone(folders: Path) -> None:
    saved = arms()
    arm.save(STUDY, saved)
    log = read(paths.training_log(STUDY))
    assert paths.training_log(STUDY).parent == folders / "logs"
    record = read(paths.study_record(STUDY))
    for own in saved:
        every = [training.timings for training in own.trainings]
        found = log[own.name]
        assert found["run_key"] == record[own.name]["run_key"]
        assert found["weights"] == record[own.name]["outputs"]["weights"]
        assert found["seconds"] == pytest.approx(sum(t["seconds"] for t in every))
        assert len(found["seconds_per_epoch"]) == 3
        assert sum(found["seconds_per_epoch"]) == pytest.approx(found["seconds"])
        images = 10 * 3 * len(every)
        assert found["images_per_second"] == pytest.approx(images / found["seconds"])
        for name in ("started", "device", "torch", "platform"):
            assert found[name] == every[0][name]
    volatile = ("seconds", "started", "platform")
    for file in (folders / "studies").rglob("*.*"):
        assert not any(word in file.read_text() for word in volatile)


def test_all_but_the_log_comes_out_the_same_again(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for again in ("a", "b"):
        monkeypatch.setattr(paths, "STUDIES", folders / again)
        arm.save(STUDY, arms())
        files = sorted(p for p in (folders / again).rglob("*") if p.is_file())
        found.append({p.relative_to(folders / again): p.read_bytes() for p in files})
    assert found[0] == found[1]
    assert len(found[0]) >= 3


def test_a_training_without_an_epoch(folders: Path) -> None:
    """It diverged at once: there is nothing to tell but its start."""
    with pytest.raises(loop.Diverged) as caught:
        loop.train(replace(SETTINGS, lr=1e38), examples(0, 10), examples(1, 4), device="cpu")
    nothing = Arm(
        name="lost",
        params={},
        inputs={},
        trainings=[caught.value.before],
        history=[],
        metrics={"epochs": 0},
    )
    arm.save(STUDY, [nothing])
    assert paths.study_history(STUDY).read_text() == "arm,epoch\n"
    log = read(paths.training_log(STUDY))["lost"]
    assert log["seconds_per_epoch"] == [] and log["images_per_second"] == 0.0


def test_a_metric_that_is_no_number_is_refused(folders: Path) -> None:
    (first, *_) = arms()
    with pytest.raises(ValueError, match="not JSON compliant"):
        arm.save(STUDY, [replace(first, metrics={"loss": float("nan")})])
    assert not paths.study_metrics(STUDY).exists()


def test_history_digests_tell_bits_apart() -> None:
    rows = [{"a": 0.1, "b": 1.0}]
    assert history.digest(rows) == history.digest([{"b": 1.0, "a": 0.1}])
    others = [[], [{"a": 0.1}], [{"a": 0.1 + 2**-56, "b": 1.0}], rows * 2]
    assert len({history.digest(r) for r in [rows, *others]}) == 5
