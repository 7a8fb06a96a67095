"""What a training leaves on disk: weights, history, record, and a volatile log."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from refashion.base import files
from refashion.training import digest
from refashion.training.loop import Epoch, Training
from refashion.training.settings import Settings

COLUMNS = [field.name for field in dataclasses.fields(Epoch)]


def run_key(determined: dict[str, Any]) -> str:
    """SHA-256 of what determined a result, as sorted compact JSON."""
    text = json.dumps(determined, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def save(
    training: Training,
    *,
    variant: str,
    settings: Settings,
    inputs: dict[str, str],
    weights: Path,
    history: Path,
    record: Path,
    log: Path,
) -> None:
    """Write a training's results.

    Parameters
    ----------
    training
        What `refashion.training.loop.train` returned.
    variant
        The model's name.
    settings
        Of the training.
    inputs
        Digest of every set of examples, by name.
    weights, history, record, log
        Where to: safetensors, CSV, JSON and JSON. Only the log holds anything volatile.
    """
    determined = {
        "contract": training.contract,
        "inputs": inputs,
        "params": settings.as_dict(),
        "variant": variant,
    }
    with files.replacing(weights) as temporary:
        save_file(training.weights, temporary)
    rows = [[_cell(v) for v in dataclasses.astuple(row)] for row in training.history]
    files.write_csv(history, COLUMNS, rows)
    outputs = {
        "history": hashlib.sha256(history.read_bytes()).hexdigest(),
        "weights": digest.weights(training.weights),
    }
    key = run_key(determined)
    files.write_json(record, {**determined, "outputs": outputs, "run_key": key})
    files.write_json(log, {**training.timings, "run_key": key, "weights": outputs["weights"]})


def _cell(value: object) -> object:
    """A value as the history shows it; empty where there is none."""
    return "" if isinstance(value, float) and math.isnan(value) else value
