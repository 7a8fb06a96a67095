"""A Ray cluster that trains the trials of a sweep: this machine's processors, or many machines'."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from refashion.base.errors import UserError
from refashion.base.progress import Advance
from refashion.data.prepared import Split
from refashion.studies import trials
from refashion.studies.executors import GO_ON, Execute, Finished
from refashion.studies.trials import Result, Splits
from refashion.training.settings import Settings

RETRIES = 10
"""How often a stack is trained anew whose worker or machine was lost."""

SECONDS = 10
"""How long a cluster may take to answer."""

ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # a cluster that starts here: on loopback alone
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # by default 12 minutes, where something else answers
}
"""Of Ray; it reads them when it is imported."""


@contextmanager
def on_ray(address: str) -> Iterator[Execute]:
    """Train trials on a Ray cluster, one stack on each of its processors or GPUs.

    It is connected to when there is something to train. A cluster that was started here is stopped
    in the end; on any other, whatever still runs for this process is.

    Parameters
    ----------
    address
        HOST:PORT of a cluster that this machine belongs to; or ``auto``: that of ``RAY_ADDRESS``,
        or the one that runs on this machine, or a new one on this machine.

    Raises
    ------
    UserError
        If Ray is not installed, nothing answers at the address, there is no processor or GPU for
        the trials, or workers are lost again and again.
    """
    os.environ.update(ENVIRONMENT | os.environ)
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError(
            "Ray is not installed; run `make environment EXTRAS=ray`, or sweep without --ray"
        ) from None
    try:
        yield partial(_train, cache(partial(_share, address)))
    finally:
        ray.shutdown()


def _train(
    share: Callable[[Split], Any],
    settings: Sequence[Settings],
    splits: Splits,
    device: str,
    advance: Advance,
) -> Finished:
    """Train as many stacks at once as the cluster has places for them."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    if not settings:
        return
    shared = {part: share(split) for part, split in splits.items()}
    resources = ray.cluster_resources()
    place = "GPU" if device == "cuda" or (device == "auto" and "GPU" in resources) else "CPU"
    if not (places := int(resources.get(place, 0))):
        raise UserError(f"the Ray cluster has no {place}, and device is {device}")
    task = ray.remote(max_retries=RETRIES, num_gpus=int(place == "GPU"))(_epochs)
    stacks = trials.stacks(settings, places)
    running = {task.remote(stack, device, **shared): stack for stack in stacks}
    try:
        while running:
            (epochs,), _ = ray.wait([*running], fetch_local=False)
            told = ray.get(next(epochs))
            if isinstance(told, list):
                yield running.pop(epochs), told
            else:
                advance(told)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except RayError as error:
        raise UserError(f"Ray: {_line(error)}; {GO_ON}") from None


def _epochs(
    stack: Sequence[Settings], device: str, **splits: Split
) -> Iterator[int | list[Result]]:
    """Train a stack on a worker: 1 for every epoch of a trial, and the results in the end.

    One that is trained anew tells the same, of which Ray passes on what was not yet told.
    """
    told: SimpleQueue[int | list[Result] | Exception] = SimpleQueue()

    def train() -> None:
        try:
            told.put(trials.train(stack, splits, device, lambda amount=1, note="": told.put(1)))
        except Exception as error:  # for the thread that waits
            told.put(error)

    Thread(target=train, daemon=True).start()  # it ends with the worker
    while isinstance(amount := told.get(), int):
        yield amount
    if isinstance(amount, Exception):
        raise amount
    yield amount


def _share(address: str, split: Split) -> Any:
    """Connect to the cluster, if need be, and give it images: each machine has them once."""
    import ray

    if not ray.is_initialized():
        _connect(address)
    # Of plain arrays, and no others, workers read the bytes where Ray keeps them.
    return ray.put(Split(images=np.asarray(split.images), labels=np.asarray(split.labels)))


def _connect(address: str) -> None:
    """Connect to a cluster, all of whose workers then run the code of this checkout."""
    import ray

    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), port), SECONDS).close()
        ray.init(
            None if address == "auto" else address,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            runtime_env={
                "py_modules": [str(Path(__file__).parents[1])],
                "env_vars": {"OMP_NUM_THREADS": "1"},
            },
        )
    except Exception as error:  # Ray raises plain ones too, as when it does not start in time
        cure = "mend that, or sweep without --ray"
        if address != "auto":
            cure = (
                "give auto, or HOST:PORT of a cluster that this machine belongs to (and set "
                "RAY_AUTH_MODE=token, if it asks for a token)"
            )
        raise UserError(f"Ray at {address}: {_line(error)}; {cure}") from None
    # Ray has set a handler that aborts this process; it shall end as by Ctrl-C, and stop Ray.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
