"""The script by which MLflow loads a registered model: code and weights, and no pickle."""

from pathlib import Path
from typing import Any

import numpy as np
from mlflow import models
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel

from refashion.base.errors import UserError
from refashion.evaluation import model
from refashion.serving import classify


class PortableModel(PythonModel):
    """Images, uint8 [n, 28, 28], to probabilities of the classes, float64 [n, 10]."""

    def load_context(self, context: Any) -> None:
        """Read the weights, and make sure that they are the ones of the record."""
        files = context.artifacts
        try:
            self.weights = model.load(Path(files["weights"]), Path(files["record"]))
        except UserError as error:
            wrong, _, _ = str(error).partition("; ")  # here, something else is to be done
            raise MlflowException.invalid_parameter_value(
                f"{wrong}; delete this version of the model and register its run again"
            ) from None

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """Give the probabilities; a mistake in the images becomes a server's status 400."""
        try:
            return classify.probabilities(self.weights, model_input)
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


models.set_model(PortableModel())
