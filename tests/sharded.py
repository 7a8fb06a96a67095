"""Models that several processes train together, and such processes, for tests."""

import functools
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import torch
from torch import distributed as dist

from oracles import HIDDEN, MLP, SOFTMAX, model
from refashion import selftest
from refashion.base.errors import UserError
from refashion.portable import multiply
from refashion.training import loop, workers
from refashion.training.loop import Model
from refashion.training.portable import PortableEngine
from refashion.training.workers import Workers

CPU = torch.device("cpu")
DROPOUT = replace(SOFTMAX, hidden=(6, 4), dropout=(0.2, 0.5))
KINDS = {
    "softmax": SOFTMAX,
    "mlp": MLP,
    "mlp, adam": replace(MLP, optimizer="adam", lr=0.01),
    "dropout": DROPOUT,
    "dropout of one layer": replace(DROPOUT, dropout=(0.0, 0.999), batch_size=7),
    "decay and momentum": replace(DROPOUT, weight_decay=0.01, momentum=0.9, lr=0.05),
    "numbers": replace(HIDDEN, num_outputs=2),
    "deep": replace(MLP, hidden=(9, 8, 7, 6), dropout=(), initialisation="he"),
    "one row at a time": replace(DROPOUT, batch_size=1, epochs=1),
    "two rows at a time": replace(MLP, batch_size=2, epochs=1),
    "all rows at once": replace(MLP, batch_size=100),
    "diverging at once": replace(MLP, lr=1e38, epochs=3),
    "diverging later": replace(SOFTMAX, weight_decay=1e5, epochs=9),
}


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


def _work(size: int, rank: int, port: int, function: Callable[[Workers], Any], pipe: Any) -> None:
    """One of several processes, as torch's launcher starts them."""
    os.environ |= {
        **{"RANK": f"{rank}", "LOCAL_RANK": f"{rank}", "WORLD_SIZE": f"{size}"},
        **{"MASTER_ADDR": workers.LOOPBACK, "MASTER_PORT": f"{port}"},
        **{"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"},
        **{"TORCHELASTIC_RESTART_COUNT": "0", "GLOO_SOCKET_IFNAME": "lo"},
    }
    with workers.joined("cpu") as group:
        assert (group.rank, group.size) == (rank, size)
        pipe.send(function(group))


def forks(size: int, function: Callable[[Workers], Any]) -> list[Any]:
    """Results of a function in every process: forks of this one, which has no threads yet."""
    store = dist.TCPStore(workers.LOOPBACK, 0, is_master=True, wait_for_workers=False)
    fork = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for rank in range(size):
        receiver, sender = fork.Pipe(duplex=False)
        arguments = (size, rank, store.port, function, sender)
        processes.append(fork.Process(target=_work, args=arguments))
        processes[-1].start()
        sender.close()
        pipes.append(receiver)
    try:
        return [_received(pipe) for pipe in pipes]
    finally:
        for process in processes:
            process.join()


def _received(pipe: Any) -> Any:
    """What a process has sent; None if it has ended."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def refusal(call: Callable[[], object]) -> str:
    """The one line of a user's mistake."""
    try:
        call()
    except UserError as error:
        return str(error)
    return "not refused"


def second_ends(group: Workers) -> str:
    """Train, but in the second process, which ends."""
    if group.rank == 1:
        os._exit(1)
    return refusal(lambda: train(MODELS["mlp"], group))


def second_hangs(group: Workers) -> str:
    """Train, but in the second process, which does nothing for longer than the others wait."""
    if group.rank == 1:
        time.sleep(2)
    return refusal(lambda: train(MODELS["mlp"], group))


def impatient_forks(size: int, function: Callable[[Workers], Any]) -> list[Any]:
    """`forks` of which none waits longer than a second."""
    with mock.patch.object(workers, "TIMEOUT", timedelta(seconds=1)):
        return forks(size, function)


def differing(group: Workers) -> str:
    """Agree on settings and data that are not the same."""
    values = {"lr": 0.1, "seed": group.rank, "train": "a", "validation": "b" * group.rank}
    return refusal(lambda: group.agree(values))
