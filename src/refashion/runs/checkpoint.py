"""Checkpoints: the state of a training under way, from which a later start goes on.

A checkpoint is one file, sealed with the training's key (`refashion.base.files.write_sealed`): a
line of JSON with the history and what was observed, then the weights and the optimizer's state
(safetensors).
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import torch as safetensors
from torch import Tensor

from refashion.base import files
from refashion.base.errors import UserError
from refashion.training.loop import Row, State

VARIABLE = "REFASHION_CHECKPOINT_SECONDS"
"""Environment variable: seconds between two checkpoints."""

DEFAULT_SECONDS = 30.0

QUICK = 0.3
"""Seconds of writing; where it takes n times as long, the time between checkpoints does too."""

KEPT = 8
"""Most checkpoints that are kept of other trainings, which were stopped."""


class Checkpoint:
    """Where a training keeps its state: a context around the training and the writing of its run.

    At the end of the context the file is deleted, unless something was raised.

    Parameters
    ----------
    folder
        Of all checkpoints. The oldest ones of other trainings are deleted at the beginning.
    key
        SHA-256 (hexadecimal) of what determines the training; another key, another training.
    writes
        False where another process writes it: here it is only read.

    Raises
    ------
    UserError
        If the environment asks for checkpoints at a time that is none.
    """

    def __init__(self, folder: Path, key: str, *, writes: bool = True) -> None:
        self.file = folder / f"{key[:16]}.checkpoint"
        self.key = key
        self.writes = writes
        self.seconds = _seconds()
        self.due = time.monotonic() + self.seconds

    def __enter__(self) -> Self:
        others = [file for file in self.file.parent.glob("*.checkpoint*") if file != self.file]
        with suppress(FileNotFoundError):  # another training has just deleted one
            for file in sorted(others, key=os.path.getmtime)[:-KEPT]:
                file.unlink()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        if kind is None and self.writes:
            self.file.unlink(missing_ok=True)

    def load(self, state: State) -> dict[str, Any] | None:
        """Bring the state of a training that has not begun to that of the file.

        Gives what was observed until then; None, and leaves the state, if there is no file, or one
        that is not sound, which is told.
        """
        try:
            body = files.read_sealed(self.file, self.key)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"cannot be read ({error.strerror}); the training starts anew")
            return None
        if body is None:
            self._warn("is damaged, or of another training; this one starts anew")
            return None
        text, _, content = body.partition(b"\n")
        about, tensors = json.loads(text), safetensors.load(content)
        state.stack, state.epoch = about["stack"], about["epoch"]
        state.optimizer = _within(tensors, "optimizer/")
        for i, (training, rows) in enumerate(zip(state.trainings, about["rows"], strict=True)):
            training.history = [Row(**row) for row in rows]
            training.weights = _within(tensors, f"{i}/")
        return about["observed"]

    def save(self, state: State, observed: Mapping[str, Any]) -> None:
        """Write the state, with what was observed (as JSON), unless it is too early.

        If the file cannot be written, that is told, and the training goes on.
        """
        begin = time.monotonic()
        if begin < self.due or not self.writes:
            return
        tensors = {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
        for i, training in enumerate(state.trainings):
            tensors |= {f"{i}/{name}": tensor for name, tensor in training.weights.items()}
        about = {
            "stack": state.stack,
            "epoch": state.epoch,
            "rows": [[asdict(row) for row in training.history] for training in state.trainings],
            "observed": observed,
        }
        rows = torch.contiguous_format
        content = {name: t.cpu().clone(memory_format=rows) for name, t in tensors.items()}
        body = json.dumps(about).encode() + b"\n" + safetensors.save(content)
        try:
            files.write_sealed(self.file, self.key, body)
        except OSError as error:
            self._warn(f"cannot be written ({error.strerror}); the training goes on")
        now = time.monotonic()
        self.due = now + self.seconds * max(1.0, (now - begin) / QUICK)

    def _warn(self, problem: str) -> None:
        print(f"warning: {self.file}: {problem}", file=sys.stderr)


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _seconds() -> float:
    """Seconds between two checkpoints."""
    text = os.environ.get(VARIABLE)
    if text is None:
        return DEFAULT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise UserError(f"{VARIABLE}: {text!r} must be a number of seconds, 0 or more, or unset")
    return seconds
