"""Trainings that are killed, and started again: the same files, whenever it strikes."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import tiny
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.checkpoint import VARIABLE, Checkpoint
from refashion.studies import classifiers, k_fold, study
from refashion.training import device, norms
from refashion.training.initial import Weights

EVENTS = {"open", "os.mkdir", "os.remove", "os.rename"}
Work = Callable[[Workspace, Params], object]
WORK: dict[str, Work] = {
    "variant": lambda workspace, params: classifiers.run(workspace, params, "dropout"),
    "folds": k_fold.run,
}
everywhere = pytest.mark.parametrize("work", WORK)
engines = pytest.mark.parametrize("numerics", ["portable", "native"])


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint at the end of every epoch."""
    monkeypatch.setenv(VARIABLE, "0")


def params(numerics: str = "portable", **changes: object) -> Params:
    return tiny.params(numerics=numerics).model_copy(update={"momentum": 0.5} | changes)


def killed(work: Work, workspace: Workspace, params: Params, moment: int) -> bool:
    """Work in a process that is killed before it touches a file of the workspace so many times.

    False if it ended first. Nothing but such touches tells one moment from another afterwards.
    """
    child = os.fork()
    if not child:
        left = moment

        def kill(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in EVENTS and str(workspace.root) in str(arguments[0]):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

        status = 1
        try:
            sys.addaudithook(kill)
            work(workspace, params)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def interrupt(workspace: Workspace, params: Params) -> None:
    """Train a variant until its first checkpoint is written."""
    save = Checkpoint.save

    def last(*arguments: Any) -> None:
        save(*arguments)
        raise KeyboardInterrupt

    with mock.patch.object(Checkpoint, "save", last), pytest.raises(KeyboardInterrupt):
        WORK["variant"](workspace, params)


def results(workspace: Workspace) -> dict[str, str]:
    """Digests of all files that the pipeline hashes."""
    folders = (workspace.models, workspace.studies)
    found = [file for folder in folders for file in folder.rglob("[!.]*.*") if file.is_file()]
    return {workspace.relative(file): files.sha256(file) for file in sorted(found)}


def checkpoints(workspace: Workspace) -> list[Path]:
    return list(workspace.checkpoints.glob("[!.]*"))


@engines
@everywhere
def test_killed_at_any_moment(work: str, numerics: str, tmp_path: Path) -> None:
    """Killed at one moment after another and started again each time, until nothing is left."""
    p = params(numerics)
    whole = tiny.write_data(tmp_path / "whole")
    WORK[work](whole, p)
    assert not checkpoints(whole) and results(whole)
    data, moment = tiny.write_data(tmp_path / "data"), 0
    going_on = 0
    while True:
        moment += 5 if work == "variant" else 41
        workspace = Workspace(tmp_path / "killed")
        shutil.copytree(data.root, workspace.root)
        if not killed(WORK[work], workspace, p, moment):
            break
        going_on += bool(checkpoints(workspace))
        killed(WORK[work], workspace, p, 5 + moment // 2)  # and once more
        WORK[work](workspace, p)
        assert results(workspace) == results(whole)
        assert not checkpoints(workspace)
        shutil.rmtree(workspace.root)
    assert going_on > 2


def test_a_training_goes_on_where_it_was(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It says so, trains the remaining epochs alone, and adds up the times of both processes."""
    p, workspace = params(epochs=5), tiny.write_data(tmp_path)
    interrupt(workspace, p)
    (checkpoint,) = checkpoints(workspace)
    capfd.readouterr()
    WORK["variant"](workspace, p)
    first, *epochs = capfd.readouterr().err.splitlines()
    assert first == f"dropout: goes on after epoch 1, from {checkpoint}"
    assert [line.split()[1] for line in epochs] == ["2/5", "3/5", "4/5", "5/5"]
    log = listing.variant(workspace, "dropout").log
    assert log is not None and len(log["seconds_per_epoch"]) == 5 and min(log["seconds_per_epoch"])


@pytest.mark.parametrize("change", ["lr", "epochs", "data", "code", "software"])
@engines
def test_a_checkpoint_is_for_the_same_training_alone(
    change: str, numerics: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other settings, images or code; for native bits, another machine or software too."""
    p, workspace = params(numerics, epochs=3), tiny.write_data(tmp_path)
    code = study.code()
    interrupt(workspace, p)
    with pytest.MonkeyPatch.context() as patch:
        match change:
            case "lr":
                p = params(numerics, epochs=3, lr=0.25)
            case "epochs":
                p = params(numerics, epochs=4)
            case "data":
                tiny.write_data(tmp_path, train=39)
            case "code":
                patch.setattr(study, "code", lambda: [*code[:-1], "0" * 64])
            case "software":
                patch.setattr(device, "software", lambda: {"torch": "1.0"})
        capfd.readouterr()
        WORK["variant"](workspace, p)
    goes_on = change == "software" and numerics == "portable"
    assert ("goes on" in capfd.readouterr().err) == goes_on
    assert len(checkpoints(workspace)) == (0 if goes_on else 1)


def test_two_trainings_of_one_run_in_one_place(tmp_path: Path) -> None:
    """Each replaces the other's checkpoint, which is as good; both end with the same files."""
    p, workspace = params(), tiny.write_data(tmp_path / "two")
    whole = tiny.write_data(tmp_path / "whole")
    WORK["variant"](whole, p)
    l2, meanwhile = norms.l2, []

    def norm(weights: Weights) -> float:  # at the end of an epoch the other trains to its end
        meanwhile.append(True)
        if len(meanwhile) == 2:
            WORK["variant"](workspace, p)
        return l2(weights)

    with mock.patch.object(norms, "l2", norm):
        WORK["variant"](workspace, p)
    assert (
        len(meanwhile) > 2 and results(workspace) == results(whole) and not checkpoints(workspace)
    )


def test_what_is_wrong_with_the_settings_is_told_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "soon")
    workspace = tiny.write_data(tmp_path)
    with pytest.raises(UserError, match=f"^{VARIABLE}: 'soon'"):
        WORK["variant"](workspace, params())
    assert not workspace.models.exists()
