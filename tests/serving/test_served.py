"""MLflow's own server, as anybody starts it, answers with a registered model."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from servers import free_port, running


@pytest.fixture
def address(world: Any, tmp_path: Path) -> Iterator[str]:
    """Serve the champion on the loopback interface."""
    world.register("mlp", "boots")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/boots@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with running(
        *(command, f"http://127.0.0.1:{port}/ping", tmp_path / "log"),
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
    ):
        yield f"http://127.0.0.1:{port}/invocations"


def test_server_answers_images_and_refuses_what_is_none(world: Any, address: str) -> None:
    images = world.images.tolist()
    for num_images in (1, 5):
        answer = requests.post(address, json={"inputs": images[:num_images]}, timeout=60)
        answer.raise_for_status()
        predictions = np.array(answer.json()["predictions"])
        assert predictions.tobytes() == world.expected("mlp")[:num_images].tobytes()

    bright, dark = np.full((2, 1, 28, 28), 0).tolist()
    bright[0][3][4], dark[0][3][4] = 256, -1
    for inputs, reason in (
        (images[0], "Shape of input (28, 28) does not match expected shape (-1, 28, 28)"),
        ([image[1:] for image in images], "Shape of input (5, 27, 28) does not match"),
        (bright, "Python integer 256 out of bounds for uint8"),
        (dark, "Python integer -1 out of bounds for uint8"),
        ((world.images[:1] / world.images[0].max()).tolist(), "pixels go from 0 to 255"),
        ([[["a"] * 28] * 28], "invalid literal"),
    ):
        answer = requests.post(address, json={"inputs": inputs}, timeout=60)
        assert answer.status_code == 400
        assert reason in answer.json()["message"]
