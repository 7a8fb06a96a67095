"""Who trains the trials of a sweep: this process, several, or a Ray cluster."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from threading import Thread

import torch

from refashion.base import machine
from refashion.base.errors import UserError
from refashion.base.progress import Advance
from refashion.studies import trials
from refashion.studies.trials import Result, Splits
from refashion.training import workers
from refashion.training.settings import Settings

Finished = Iterator[tuple[Sequence[Settings], list[Result]]]
"""Trials that were trained side by side, with their results."""

Execute = Callable[[Sequence[Settings], Splits, str, Advance], Finished]
"""Trains trials on images, on the device of a name, and yields them in any order; it tells of every
epoch."""

GO_ON = "run it again: it goes on from the trials that are done"


def in_this_process(
    settings: Sequence[Settings], splits: Splits, device: str, advance: Advance
) -> Finished:
    """Train one stack of trials after another."""
    for stack in trials.stacks(settings, 1):
        yield stack, trials.train(stack, splits, device, advance)


def in_processes(
    count: int, settings: Sequence[Settings], splits: Splits, device: str, advance: Advance
) -> Finished:
    """Train as many stacks at once as there are processes, which share this one's threads.

    The images are in memory once. The processes end with this one. `UserError` if one is killed.
    """
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    stacks = trials.stacks(settings, count)
    count = min(count, len(stacks))
    if count < 2:
        yield from in_this_process(settings, splits, device, advance)
        return
    threads = max(1, torch.get_num_threads() // count)
    with (
        _listening(advance) as address,
        parallel_config("loky", n_jobs=count, inner_max_num_threads=threads),
    ):
        tasks = (delayed(_train)(stack, splits, device, address, os.getpid()) for stack in stacks)
        try:
            yield from Parallel(return_as="generator_unordered")(tasks)
        except TerminatedWorkerError:
            raise UserError(f"one of {count} processes was killed; {GO_ON}") from None


@contextmanager
def _listening(advance: Advance) -> Iterator[tuple[str, int]]:
    """Count one epoch as done for every byte that is sent to the address on loopback it yields."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        address = receiver.getsockname()

        def listen() -> None:
            while receiver.recv(1):
                advance()

        thread = Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield address
        finally:
            receiver.sendto(b"", address)  # the end
            thread.join()


def _train(
    stack: Sequence[Settings], splits: Splits, device: str, address: tuple[str, int], parent: int
) -> tuple[Sequence[Settings], list[Result]]:
    """Train a stack in a process of its own, which sends a byte after every epoch of a trial."""
    _end_with(parent)
    with socket.socket(type=socket.SOCK_DGRAM) as sender:

        def advance(amount: float = 1, note: str = "") -> None:
            sender.sendto(b".", address)

        return stack, trials.train(stack, splits, device, advance)


@cache
def _end_with(parent: int) -> None:
    """Let this process end when its parent does: nobody else would have its results."""
    if os.getpid() != parent:  # as it is where joblib is told to start none
        Thread(target=machine.end_with, args=(parent,), daemon=True).start()


def chosen() -> AbstractContextManager[Execute]:
    """What the environment asks for, by default this process.

    It is the Ray cluster of ``REFASHION_RAY`` (`refashion.studies.cluster.on_ray`), or as many
    processes as ``REFASHION_PROCESSES`` says. `UserError` if that is no number of processes, or
    both are asked for.
    """
    count = workers.to_launch()
    if address := os.environ.get("REFASHION_RAY"):
        if count > 1:
            raise UserError(f"{workers.VARIABLE} and REFASHION_RAY are both set; unset one of them")
        from refashion.studies import cluster

        return cluster.on_ray(address)
    return nullcontext(partial(in_processes, count) if count > 1 else in_this_process)
