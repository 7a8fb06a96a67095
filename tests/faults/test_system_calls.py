"""Every call by which a stage changes files fails, or is the last one: the Nth, for all N."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import injected
from campaign import Campaign, Ground
from refashion.runs.checkpoint import VARIABLE

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("strace")]

FAULTS = ("KILL", "ENOSPC", "EIO")

DATABASE = ("mlflow.db", "mlflow-artifacts")

WORK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # name: arguments of the stage, and what is missing before it runs; the longest first
    "database": (("track", "softmax"), DATABASE),
    "track": (("track", "softmax"), DATABASE),
    "check": (("check",), ("data/checked",)),
    "download": (("download",), ("data/raw",)),
    "preprocess": (("preprocess",), ("data/prepared", "reports/data.json")),
    "train": (("train", "mlp"), ("models/mlp",)),
    "checkpoint": (("train", "mlp"), ("models/mlp",)),
    "evaluate": (("evaluate", "mlp"), ("reports/evaluation/mlp",)),
    "compare": (
        ("compare",),
        (
            *("reports/metrics.json", "reports/comparison.json", "reports/curves.csv"),
            *("reports/accuracies.csv", "reports/calibration.csv", "reports/confusion.csv"),
        ),
    ),
    "download_houses": (("download_houses",), ("data/houses",)),
    "study": (
        ("study", "weight_decay"),
        ("reports/studies/weight_decay", "reports/studies/weight_decay.json"),
    ),
}

MOST = 5
"""Trials of one kind of fault in one stage; of more moments, so many are chosen."""

Trial = Callable[[str, str, Campaign, int], None]


@pytest.fixture(scope="module")
def inject(ground: Ground, empty_database: Path) -> Trial:
    """Inject a fault at some moments of a stage's, and count what became of it."""
    known: dict[str, list[injected.Moment]] = {}

    def inject(name: str, fault: str, trials: Campaign, most: int) -> None:
        arguments, missing = WORK[name]
        environment = {**ground.workspace.environment}
        if name == "checkpoint":
            environment[VARIABLE] = "0"
        published = ("softmax",) if missing == DATABASE else ()

        def start() -> None:
            ground.put_back(*missing)
            if name == "track":  # the tables are there; making them is another trial
                shutil.copyfile(empty_database, ground.root / "mlflow.db")

        if name not in known:
            start()
            known[name] = injected.moments(ground.root, *arguments, **environment)
        moments = known[name]
        if len(moments) > most:  # always the same ones
            moments = random.Random(f"{name} {fault}").sample(moments, most)
        for moment in moments:
            start()
            outcome = injected.inject(fault, moment, ground.root, *arguments, **environment)
            wrong = ["half_written"] * bool(ground.half_written())
            if fault == "KILL":
                assert outcome.code in (-9, 0), outcome
            elif not outcome.is_told:
                wrong.append("untold")
            again = [injected.stage(ground.root, *arguments, **environment)]
            if moment == moments[-1]:  # whose files are the same each time
                again.append(injected.dvc(ground.root, "repro", **environment))
            trials.add(f"{name}: {moment}", wrong + ground.check(*again, published=published))

    return inject


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", WORK)
def test_nth_call(name: str, fault: str, inject: Trial, campaign: Campaign) -> None:
    with campaign.of(f"{name}: {fault} at the Nth call") as trials:
        inject(name, fault, trials, MOST)


@pytest.mark.ci
@pytest.mark.parametrize("fault", FAULTS)
def test_some_calls(fault: str, inject: Trial, campaign: Campaign) -> None:
    with campaign.of(f"a sample: {fault} at the Nth call") as trials:
        for name in ("preprocess", "checkpoint", "track", "database"):
            inject(name, fault, trials, 1)
