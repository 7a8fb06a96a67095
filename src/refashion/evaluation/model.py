"""A trained model, read back from what its training left."""

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from refashion.base.errors import UserError
from refashion.training import digest
from refashion.training.initial import Weights


def load(weights: Path, record: Path) -> Weights:
    """Read the weights of a training, and make sure that they are the ones of its record.

    Raises
    ------
    UserError
        If a file is missing or damaged, or if the two do not belong together.
    """
    for path in (weights, record):
        if not path.is_file():
            raise UserError(f"{path}: there is no such file; run `dvc repro`")
    try:
        tensors = load_file(weights)
        promised = json.loads(record.read_text(encoding="utf-8"))["outputs"]["weights"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{weights.parent}: its files are damaged ({reason}); delete them and run `dvc repro`"
        ) from None
    if digest.weights(tensors) != promised:
        raise UserError(
            f"{weights}: not the weights that {record.name} tells of; delete it and run `dvc repro`"
        )
    return tensors
