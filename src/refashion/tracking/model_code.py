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
from refashion.data.catalogue import DATASETS
from refashion.evaluation import classify
from refashion.training import digest


class Refusal(MlflowException):
    """A mistake in a request: a server's status 400, and one line."""

    def serialize_as_json(self) -> str:
        """Leave out what MLflow's server puts before the message: all the pixels."""
        self.message = str(self)
        return super().serialize_as_json()


class PortableModel(PythonModel):
    """Images to class names and probabilities; see `refashion.evaluation.classify`."""

    def load_context(self, context: Any) -> None:
        """Read the weights, and make sure that they are the ones of the record."""
        weights, record = (Path(context.artifacts[name]) for name in ("weights", "record"))
        try:
            self.weights = load_file(weights)
            promised = json.loads(record.read_text(encoding="utf-8"))
            self.classes = DATASETS[promised["data"]["dataset"]].classes
            intact = digest.weights(self.weights) == promised["outputs"]["weights"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise MlflowException.invalid_parameter_value(
                f"{weights}: not the weights that {record.name} tells of; delete this version of "
                "the model and register its run again"
            )

    def predict(
        self, context: Any, model_input: np.ndarray, params: Any = None
    ) -> list[dict[str, Any]]:
        """Give the class and the probabilities of every image."""
        try:
            probabilities = classify.probabilities(self.weights, model_input)
        except UserError as error:
            raise Refusal.invalid_parameter_value(str(error)) from None
        return classify.answers(self.classes, probabilities)


models.set_model(PortableModel())
