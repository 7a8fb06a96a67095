"""Processes that train one model together, each on its own rows of every batch.

All that depends on the other rows is a largest magnitude or a sum of whole numbers, and neither has
an order: any number of processes gives the bits of one. Weights and the optimizer's state are the
same in all of them. ``torchrun`` starts them, or `launch`.
"""

import hashlib
import logging
import os
import reprlib
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from refashion.base.errors import UserError
from refashion.portable import exact
from refashion.training import device as devices

VARIABLE = "REFASHION_PROCESSES"
TIMEOUT = timedelta(minutes=5)
"""After which a process that waits for the others gives up."""

LOOPBACK = "127.0.0.1"
LOOPBACK_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"


class Workers:
    """One process alone, to which all rows belong."""

    rank = 0
    """Number of this process; the first alone writes and shows progress."""
    size = 1
    """Number of processes."""

    def agree(self, values: Mapping[str, object]) -> None:
        """Raise `UserError` unless the values of every name are the same in all processes."""

    def own(self, rows: slice) -> slice:
        """Those rows that this process computes: all, none or any number of them."""
        return rows

    def magnitude(self, x: Tensor) -> float | Tensor:
        """Largest magnitude of the rows of all processes; see `refashion.portable.exact`."""
        return exact.magnitude(x)

    def add(self, sums: Sequence[exact.Sums]) -> None:
        """Add up the sums of all processes, in place."""

    def gather(self, parts: Sequence[tuple[slice, Tensor]], n: int) -> Tensor:
        """All `n` rows in their order, from each process's own: float64 [..., n, columns]."""
        return torch.cat([part for _, part in parts], dim=-2)


ALONE = Workers()


class Group(Workers):
    """The processes of torch's default group, of which this is one."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def agree(self, values: Mapping[str, object]) -> None:
        """Compare digests: none may be less than the largest."""
        digests = [hashlib.sha256(repr(value).encode()).digest() for value in values.values()]
        numbers = torch.tensor([int.from_bytes(digest[:7]) for digest in digests])
        largest = torch.stack([numbers, -numbers])
        self._reduce(largest, dist.ReduceOp.MAX)
        differing = (largest[0] != -largest[1]).tolist()
        if names := [name for name, differs in zip(values, differing, strict=True) if differs]:
            raise UserError(
                f"the {self.size} processes differ in {', '.join(names)}: start all of them with "
                "the same settings, data and code"
            )

    def own(self, rows: slice) -> slice:
        """Consecutive rows; shares differ by one row at most."""
        start, n = rows.start, rows.stop - rows.start
        first, end = (start + n * rank // self.size for rank in (self.rank, self.rank + 1))
        return slice(first, end)

    def magnitude(self, x: Tensor) -> float | Tensor:
        """The bits of numbers that are not negative have their order, and NaN's are the largest."""
        largest = exact.magnitude(x if len(x) else x.new_zeros(1, x.shape[-1]))
        number = torch.as_tensor(largest, dtype=torch.float64).abs()  # nor has NaN a sign
        self._reduce(number.view(torch.int64), dist.ReduceOp.MAX)
        return number if isinstance(largest, Tensor) else number.item()

    def add(self, sums: Sequence[exact.Sums]) -> None:
        """In int32, or int64 where the whole sum may need it."""
        for narrow, dtype in ((True, torch.int32), (False, torch.int64)):
            chosen = [s for s in sums if (s.bound < 2**31) == narrow]
            if not chosen:
                continue
            whole = torch.cat([s.integers.flatten().to(dtype) for s in chosen])
            self._reduce(whole, dist.ReduceOp.SUM)
            parts = whole.split([s.integers.numel() for s in chosen])
            for s, part in zip(chosen, parts, strict=True):
                s.integers = part.view(s.integers.shape)

    def gather(self, parts: Sequence[tuple[slice, Tensor]], n: int) -> Tensor:
        """Bits of rows are added as int64 to the zeros that all other processes have there."""
        whole = parts[0][1].new_zeros(n, parts[0][1].shape[-1])
        for rows, part in parts:
            whole[rows] = part
        self._reduce(whole.view(torch.int64), dist.ReduceOp.SUM)
        return whole

    def _reduce(self, x: Tensor, operation: Any) -> None:
        try:
            dist.all_reduce(x, operation)
        except RuntimeError as error:
            raise _lost() from error


def launched() -> bool:
    """Whether this is one of several processes that `torchrun` or `launch` has started."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1"


@contextmanager
def joined(device: str) -> Iterator[Workers]:
    """Context in which the processes of a training work together; each on its own GPU, if any.

    `UserError` if there is no such device for each, or another process is lost.
    """
    if not launched():
        yield ALONE
        return
    kind, backend = devices.resolve(device).type, "gloo"
    if kind == "cuda":
        backend, local = "cpu:gloo,cuda:nccl", int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UserError(
                f"device: process {local} of this machine has no GPU of its own; start "
                f"{torch.cuda.device_count()} at most, or use device: cpu"
            )
        torch.cuda.set_device(local)
    try:
        store, rank, size = _store(TIMEOUT)
        dist.init_process_group(backend, timeout=TIMEOUT, store=store, rank=rank, world_size=size)
    except RuntimeError as error:
        raise _lost() from error
    group = Group()
    group.agree({"device": kind})
    yield group
    dist.destroy_process_group()


def _store(timeout: timedelta) -> tuple[Any, int, int]:
    """The launcher's store, with this process's number and that of all.

    When ``torchrun --max-restarts`` starts them again the store is the former one, where the
    addresses of processes that have ended would be found.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://", timeout=timeout))
    return PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store), rank, size


def _lost() -> UserError:
    rank, minutes = os.environ["RANK"], TIMEOUT.total_seconds() / 60
    return UserError(
        f"process {rank}: another process has ended, or did not answer for {minutes:g} minutes; "
        "start the training again"
    )


def tell(line: str) -> None:
    """Print a line on standard error, unless another process of the training has told one."""
    if launched():
        try:
            store, *_ = _store(timedelta(seconds=10))
            if store.add("errors", 1) > 1:
                store.wait(["told"])  # since the launcher ends all processes as soon as one fails
                return
            print(line, file=sys.stderr)
            store.set("told", "")
            return
        except RuntimeError:  # the launcher has ended, and its store with it
            pass
    print(line, file=sys.stderr)


def to_launch() -> int:
    """How many processes ``REFASHION_PROCESSES`` asks for; 1 by default, and in one of them.

    `UserError` if it is no number of processes.
    """
    text = "1" if launched() else os.environ.get(VARIABLE) or "1"
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise UserError(f"{VARIABLE} is {reprlib.repr(text)}; it must be an integer >= 1")
    return int(text)


def launch(number: int, command: Sequence[str]) -> int:
    """Run a Python program in `number` processes by torch's own launcher; give the exit code.

    They share the processors of this machine, which alone can reach them. `UserError` if one of
    them is killed.
    """
    from torch.distributed import TCPStore, run  # type: ignore[attr-defined]
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # what the processes tell is enough
    os.environ.setdefault("OMP_NUM_THREADS", f"{max(1, torch.get_num_threads() // number)}")
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK_INTERFACE)
    # The launcher's own store would listen on all addresses. On this port it takes this one.
    listener = socket.create_server((LOOPBACK, 0))
    port = listener.getsockname()[1]
    store = TCPStore(
        LOOPBACK,
        port,
        is_master=True,
        wait_for_workers=False,
        multi_tenant=True,
        master_listen_fd=listener.detach(),
    )
    address = [f"--master-addr={LOOPBACK}", f"--master-port={store.port}"]
    try:
        run.run(run.parse_args([f"--nproc-per-node={number}", *address, *command]))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(f"process {rank} was killed ({name}); start again") from error
        return failure.exitcode
    except SignalException as error:
        return 128 + error.sigval
    return 0
