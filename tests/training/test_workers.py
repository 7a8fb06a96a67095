"""Any number of processes gives the bits of one, and none of them waits for ever."""

import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from torch import distributed as dist

import tiny
from matrices import random_pixels
from oracles import numbers
from refashion import selftest
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.portable import multiply
from refashion.studies import classifiers
from refashion.training import loop, workers
from refashion.training.engine import Examples
from refashion.training.loop import Model
from refashion.training.portable import PortableEngine
from refashion.training.settings import Settings
from refashion.training.workers import Workers

CPU = torch.device("cpu")
SIZES = [2, 3, 4, 5, 8]
N = 13  # the last batch of five has three examples

SOFTMAX = Settings(lr=0.5, epochs=2, batch_size=5, num_inputs=12, num_outputs=3)
MLP = replace(SOFTMAX, hidden=(70,), dropout=())  # wide enough for limbs by row
DROPOUT = replace(SOFTMAX, hidden=(6, 4), dropout=(0.2, 0.5))
NUMBERS = Settings(
    hidden=(6,), lr=0.05, epochs=2, batch_size=5, num_inputs=7, num_outputs=2, loss="squared"
)
KINDS = {
    "softmax": SOFTMAX,
    "mlp": MLP,
    "mlp, adam": replace(MLP, optimizer="adam", lr=0.01),
    "dropout": DROPOUT,
    "dropout of one layer": replace(DROPOUT, dropout=(0.0, 0.999), batch_size=7),
    "decay and momentum": replace(DROPOUT, weight_decay=0.01, momentum=0.9, lr=0.05),
    "numbers": NUMBERS,
    "deep": replace(MLP, hidden=(9, 8, 7, 6), dropout=(), initialisation="he"),
    "one row at a time": replace(DROPOUT, batch_size=1, epochs=1),
    "two rows at a time": replace(MLP, batch_size=2, epochs=1),
    "all rows at once": replace(MLP, batch_size=100),
    "diverging at once": replace(MLP, lr=1e38, epochs=3),
    "diverging later": replace(SOFTMAX, weight_decay=1e5, epochs=9),
}


def model(settings: Settings, n: int = N, watched: int = 9) -> Model:
    """A model with examples of its own shape."""
    if settings.loss == "squared":
        examples = numbers(settings, n + watched)
    else:
        pixels = random_pixels(n + watched, settings.num_inputs)
        examples = Examples(inputs=pixels, targets=pixels[:, 0].long() % settings.num_outputs)
    return Model(
        settings=settings, train=examples[slice(0, n)], validation=examples[slice(n, n + watched)]
    )


def train(model: Model, group: Workers = workers.ALONE) -> list[str]:
    """Rows of the history, with digests of the weights; text, since NaN is not equal to itself."""
    return [repr(row) for row, _ in loop.train([model], device="cpu", workers=group)]


MODELS = {
    **{name: model(settings) for name, settings in KINDS.items()},
    "fewer examples than processes": model(MLP, n=1, watched=2),
    "nothing watched": model(DROPOUT, watched=0),
}


def trainings(group: Workers) -> dict[str, list[str]]:
    """Histories of all models, computed by one kernel on even ranks and by another on odd ones."""
    with multiply.products("float64" if group.rank % 2 else "int8"):
        return {name: train(model, group) for name, model in MODELS.items()}


def golden(group: Workers) -> dict[str, str | None]:
    """First differences of instances of the self-test, long sums and single rows among them."""
    engine = functools.partial(PortableEngine, workers=group)
    names = ("mlp", "dropout", "numbers", "last_row", "single_rows", "long_sum")
    with mock.patch.object(selftest, "PortableEngine", engine):
        return {name: selftest.check(name, CPU) for name in names}


def work(size: int, rank: int, port: int, function: Callable[[Workers], Any], pipe: Any) -> None:
    """One of several processes, as torch's launcher starts them."""
    os.environ |= {
        **{"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{size}"},
        **{"MASTER_ADDR": workers.LOOPBACK, "MASTER_PORT": f"{port}"},
        **{"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"},
        **{"GLOO_SOCKET_IFNAME": "lo"},
    }
    with workers.joined("cpu") as group:
        assert (group.rank, group.size) == (rank, size)
        pipe.send(function(group))


def in_processes(size: int, function: Callable[[Workers], Any]) -> list[Any]:
    """Results of a function in every process; they are forks, which need not import torch."""
    store = dist.TCPStore(workers.LOOPBACK, 0, is_master=True, wait_for_workers=False)
    fork = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(size):
        receiver, sender = fork.Pipe(duplex=False)
        arguments = (size, rank, store.port, function, sender)
        processes.append(fork.Process(target=work, args=arguments))
        processes[-1].start()
        sender.close()
        pipes.append(receiver)
    try:
        return [received(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.join()


def received(pipe: Any) -> Any:
    """What a process has sent; None if it has ended."""
    try:
        return pipe.recv()
    except EOFError:
        return None


@functools.cache
def alone() -> dict[str, list[str]]:
    return trainings(workers.ALONE)


def test_the_models_are_what_they_are_called() -> None:
    lengths = {name: len(rows) for name, rows in alone().items()}
    assert lengths["diverging at once"] == 0 and 0 < lengths["diverging later"] < 9
    for name, m in MODELS.items():
        assert lengths[name] == m.settings.epochs or name.startswith("diverging")
    assert len({rows[-1] for rows in alone().values() if rows}) == len(MODELS) - 1


@pytest.mark.parametrize("size", SIZES)
def test_any_number_of_processes_gives_the_bits_of_one(size: int) -> None:
    """Int8 and float64 kernels are mixed."""
    for histories in in_processes(size, trainings):
        assert histories == alone()


@pytest.mark.parametrize("size", [2, 3])
def test_the_contracts_bits(size: int) -> None:
    for differences in in_processes(size, golden):
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


def refusal(call: Callable[[], object]) -> str:
    """The one line of an error; `AssertionError` if there is none."""
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def train_but_the_second(group: Workers, instead: Callable[[], object]) -> str:
    if group.rank == 1:
        instead()
    return refusal(lambda: train(MODELS["mlp"], group))


def test_a_process_that_ends_is_missed() -> None:
    ends = functools.partial(train_but_the_second, instead=lambda: os._exit(1))
    first, second, third = in_processes(3, ends)
    assert second is None
    assert first.startswith("process 0: another process has ended")
    assert third == first.replace("0:", "2:")


def test_a_process_that_hangs_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TIMEOUT", timedelta(seconds=1))
    hangs = functools.partial(train_but_the_second, instead=lambda: time.sleep(2))
    assert "did not answer" in in_processes(2, hangs)[0]


def test_processes_with_other_settings_or_data_are_refused() -> None:
    def differing(group: Workers) -> str:
        values = {"lr": 0.1, "seed": group.rank, "train": "a", "validation": "b" * group.rank}
        return refusal(lambda: group.agree(values))

    for line in in_processes(3, differing):
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


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "two", " "])
def test_a_number_of_processes_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFASHION_PROCESSES", text)
    with pytest.raises(UserError, match=f"REFASHION_PROCESSES is '{text}'; it must be an integer"):
        workers.to_launch()


# --- the stage --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkout with data and settings, but without code."""
    workspace = tiny.write_data(tmp_path_factory.mktemp("stage"))
    settings = tiny.params().model_dump(mode="json")
    files.write_text(workspace.params_file, yaml.safe_dump(settings))
    files.write_text(workspace.root / "dvc.yaml", "stages: {}\n")
    return workspace


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


STAGES = str(Path(__file__).parents[2] / "stages")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", STAGES)


def results(workspace: Workspace) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in workspace.models.glob("dropout/*")}


@pytest.mark.parametrize("command", [(STAGES, "train", "dropout"), (*TORCHRUN, "train", "dropout")])
def test_a_stage_in_several_processes_writes_the_same_bytes(
    command: tuple[str, ...], workspace: Workspace
) -> None:
    classifiers.run(workspace, workspace.params(), "dropout")
    want = results(workspace)
    for file in workspace.models.glob("dropout/*"):
        file.unlink()
    process = start(workspace, *command, REFASHION_PROCESSES="2")
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    assert results(workspace) == want and set(want) >= {"weights.safetensors", "record.json"}
    for epoch in (1, 2):
        assert printed.count(f"dropout: {epoch}/2 epochs") == 1


def test_other_stages_refuse_several_processes_once(workspace: Workspace) -> None:
    process = start(workspace, *TORCHRUN, "check")
    printed, _ = process.communicate()
    assert process.returncode == 1  # torchrun's own
    assert printed.count("error: stage check: torchrun is for train alone") == 1
    assert not workspace.checked.exists()


def children(pid: int) -> list[int]:
    file = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in file.read_text().split()] if file.exists() else []


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("case", ["killed", "interrupted"])
def test_nothing_is_left_of_processes_that_are_ended(case: str, workspace: Workspace) -> None:
    settings = workspace.params().model_dump(mode="json") | {"epochs": 100, "batch_size": 1}
    files.write_text(workspace.params_file, yaml.safe_dump(settings))
    process = start(workspace, STAGES, "train", "dropout", REFASHION_PROCESSES="2")
    assert process.stdout is not None
    process.stdout.readline()  # of the first epoch
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
