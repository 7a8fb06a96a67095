"""The trained model of a run."""

from safetensors import SafetensorError
from safetensors.torch import load_file

from refashion.base.errors import UserError
from refashion.runs.run import WEIGHTS, Run
from refashion.training import digest
from refashion.training.initial import Weights


def load(run: Run) -> Weights:
    """Read the weights of a run, and check them against its record.

    `UserError` if a file is missing or damaged, or the weights are not those of the record.
    """
    file = run.file(WEIGHTS)
    try:
        weights = load_file(file)
        found = digest.weights(weights)  # which refuses other types
    except (SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{file}: damaged ({reason}); delete it and run `dvc repro` to make it again"
        ) from None
    if found != run.record.outputs["weights"]:
        raise UserError(
            f"{file}: not the weights that record.json promises; delete it and run `dvc repro`"
        )
    return weights
