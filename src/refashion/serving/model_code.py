"""The script by which MLflow loads a registered model: code and weights, and no pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import models
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from refashion.base.errors import UserError
from refashion.serving import classify
from refashion.training import digest


class PortableModel(PythonModel):
    """Images, uint8 [n, 28, 28], to probabilities of the classes, float64 [n, 10]."""

    def load_context(self, context: Any) -> None:
        """Read the weights, and make sure that they are the ones of the record."""
        weights, record = (Path(context.artifacts[name]) for name in ("weights", "record"))
        try:
            self.weights = load_file(weights)
            promised = json.loads(record.read_text(encoding="utf-8"))["outputs"]["weights"]
            intact = digest.weights(self.weights) == promised
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise MlflowException.invalid_parameter_value(
                f"{weights}: not the weights that {record.name} tells of; delete this version of "
                "the model and register its run again"
            )

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Give the probabilities; a mistake in the images becomes a server's status 400."""
        try:
            return classify.probabilities(self.weights, model_input)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


models.set_model(PortableModel())
