"""Any number of processes gives the bits of one, and none of them waits for ever."""

import functools
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml

import sharded
import tiny
from oracles import MLP, model
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.studies import classifiers
from refashion.training import workers
from refashion.training.workers import Workers
from sharded import MODELS, forks, golden, refusal, train, trainings


@pytest.fixture(scope="module")
def clean() -> Iterator[ProcessPoolExecutor]:
    """A process without threads, whose forks cannot wait for one that they do not have."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield pool


@functools.cache
def alone() -> dict[str, list[str]]:
    return trainings(workers.ALONE)


def test_the_models_are_what_they_are_called() -> None:
    lengths = {name: len(rows) for name, rows in alone().items()}
    assert lengths["diverging at once"] == 0 and 0 < lengths["diverging later"] < 9
    for name, m in MODELS.items():
        assert lengths[name] == m.settings.epochs or name.startswith("diverging")
    assert len({rows[-1] for rows in alone().values() if rows}) == len(MODELS) - 1


@pytest.mark.parametrize("size", [2, 3, pytest.param(8, marks=pytest.mark.ci)])
def test_any_number_of_processes_gives_the_bits_of_one(
    size: int, clean: ProcessPoolExecutor
) -> None:
    """Int8 and float64 kernels are mixed. Of 8, some have no row of a batch, the others one."""
    for histories in clean.submit(forks, size, trainings).result():
        assert histories == alone()


def test_the_contracts_bits(clean: ProcessPoolExecutor) -> None:
    for differences in clean.submit(forks, 3, golden).result():
        assert not any(differences.values()), differences


def test_rows_are_shared_evenly_and_in_their_order() -> None:
    group = mock.Mock(spec=workers.Group)
    for size, (start, n) in itertools.product([1, 2, 3, 8], [(0, 0), (5, 1), (0, 7), (256, 256)]):
        shares = []
        for group.rank in range(size):
            group.size = size
            shares.append(workers.Group.own(group, slice(start, start + n)))
        assert [i for s in shares for i in range(s.start, s.stop)] == [*range(start, start + n)]
        lengths = [s.stop - s.start for s in shares]
        assert max(lengths) - min(lengths) <= 1


# --- what goes wrong --------------------------------------------------------------------------


def test_a_process_that_ends_is_missed(clean: ProcessPoolExecutor) -> None:
    first, second, third = clean.submit(forks, 3, sharded.second_ends).result()
    assert second is None
    assert first.startswith("process 0: another process has ended")
    assert third == first.replace("0:", "2:")


def test_a_process_that_hangs_is_waited_for_no_longer(clean: ProcessPoolExecutor) -> None:
    told, _ = clean.submit(sharded.impatient_forks, 2, sharded.second_hangs).result()
    assert "did not answer" in told


def test_processes_with_other_settings_or_data_are_refused(clean: ProcessPoolExecutor) -> None:
    for line in clean.submit(forks, 3, sharded.differing).result():
        assert line.startswith("the 3 processes differ in seed, validation: start all")


def test_the_native_engine_trains_in_one_process() -> None:
    group = mock.Mock(spec=Workers, rank=0, size=2)
    native = model(replace(MLP, numerics="native"))
    assert "numerics: native trains in one process" in refusal(lambda: train(native, group))


def test_a_gpu_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    variables = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_RANK": "4"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="process 4 of this machine has no GPU"):
        workers.joined("auto").__enter__()


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", " ", "1" * 5000])
def test_a_number_of_processes_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFASHION_PROCESSES", text)
    with pytest.raises(UserError, match=rf"^REFASHION_PROCESSES is '{text[:9]}.*'; it must be an"):
        workers.to_launch()


# --- the stage --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkout with data and settings, but without code."""
    workspace = tiny.write_data(tmp_path_factory.mktemp("stage"))
    files.write_text(workspace.root / "dvc.yaml", "stages: {}\n")
    return workspace


def configure(workspace: Workspace, **changes: int) -> None:
    """Write the settings, and take away the results of others."""
    settings = tiny.params().model_dump(mode="json") | changes
    files.write_text(workspace.params_file, yaml.safe_dump(settings))
    for file in workspace.models.glob("dropout/*"):
        file.unlink()


def alone_in(workspace: Workspace, **changes: int) -> dict[str, bytes]:
    """Results of one process, which are taken away."""
    configure(workspace, **changes)
    classifiers.run(workspace, workspace.params(), "dropout")
    want = results(workspace)
    assert set(want) >= {"weights.safetensors", "record.json"}
    configure(workspace, **changes)
    return want


def results(workspace: Workspace) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in workspace.models.glob("dropout/*")}


def start(workspace: Workspace, *command: str, **variables: str) -> subprocess.Popen[str]:
    """Start a stage with torch's launcher, or with our own."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=workspace.root,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(line: str, process: subprocess.Popen[str]) -> None:
    """Until a process prints this line, or the beginning of it."""
    assert process.stdout is not None
    while line not in (printed := process.stdout.readline()):
        assert printed


STAGES = str(Path(__file__).parents[2] / "stages")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2")
TRAIN = (STAGES, "train", "dropout")
ALWAYS = {"REFASHION_CHECKPOINT_SECONDS": "0"}
linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def children(pid: int) -> list[int]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in file.read_text().split()] if file.exists() else []


@pytest.mark.ci
def test_a_stage_in_several_processes_writes_the_same_bytes(workspace: Workspace) -> None:
    want = alone_in(workspace)
    process = start(workspace, *TRAIN, REFASHION_PROCESSES="2")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert results(workspace) == want
    for epoch in (1, 2):
        assert printed.count(f"dropout: {epoch}/2 epochs") == 1


@pytest.mark.ci
@linux
def test_a_training_goes_on_when_torchrun_starts_it_again(workspace: Workspace) -> None:
    want = alone_in(workspace, epochs=20, batch_size=3)
    process = start(workspace, *TORCHRUN, "--max-restarts=1", *TRAIN, **ALWAYS)
    wait_for("dropout: 3/20 epochs", process)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert printed.count("dropout: goes on after epoch") == 1
    assert printed.count("dropout: 20/20 epochs") == 1
    assert results(workspace) == want


@pytest.mark.ci
@linux
@pytest.mark.parametrize("case", ["killed", "interrupted"])
def test_nothing_is_left_of_processes_that_are_ended_but_what_one_goes_on_from(
    case: str,
    workspace: Workspace,
    capfd: pytest.CaptureFixture[str],
) -> None:
    want = alone_in(workspace, epochs=100, batch_size=3)
    process = start(workspace, *TRAIN, REFASHION_PROCESSES="2", **ALWAYS)
    wait_for("dropout: 3/100 epochs", process)
    ranks = children(process.pid)
    assert len(ranks) == 2
    if case == "killed":
        os.kill(ranks[1], signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGINT)
    printed, _ = process.communicate()
    told = {
        "killed": (2, "error: process 1 was killed (SIGKILL); start again"),
        "interrupted": (130, "interrupted: `make repro` goes on from here"),
    }
    assert (process.returncode, printed.splitlines()[-1]) == told[case]
    assert "Traceback" not in printed
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)
    assert not results(workspace)
    classifiers.run(workspace, workspace.params(), "dropout")
    assert "dropout: goes on after epoch" in capfd.readouterr().err
    assert results(workspace) == want


@pytest.mark.ci
def test_other_stages_refuse_several_processes_once(workspace: Workspace) -> None:
    configure(workspace)
    process = start(workspace, *TORCHRUN, STAGES, "check")
    printed, _ = process.communicate()
    assert process.returncode == 1  # torchrun's own
    assert printed.count("error: stage check: torchrun is for train alone") == 1
    assert not workspace.checked.exists()


@pytest.mark.ci
@linux
def test_processes_end_with_their_launcher(workspace: Workspace) -> None:
    configure(workspace, epochs=100, batch_size=1)
    process = start(workspace, *TORCHRUN, *TRAIN)
    wait_for("dropout: ", process)
    process.kill()
    process.communicate(timeout=60)  # until all of them have closed it
    assert not results(workspace)  # which they would have had


def test_a_process_ends_if_its_launcher_ended_before_it_could_see_it(workspace: Workspace) -> None:
    configure(workspace)
    with socket.create_server((workers.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    names = ("RANK", "LOCAL_RANK", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    variables = dict.fromkeys(names, "0") | {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": workers.LOOPBACK,
        "MASTER_PORT": f"{port}",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    process = start(workspace, *TRAIN, **variables)
    process.communicate(timeout=60)  # torch would wait for five minutes
    assert process.returncode == 1
