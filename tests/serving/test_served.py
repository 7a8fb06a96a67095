"""MLflow's own server, as anybody starts it, answers with a registered model."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from refashion.evaluation.classify import ADVICE
from servers import free_port, running

pytestmark = pytest.mark.ci


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


def test_server_answers_images_and_refuses_what_is_none(
    world: Any, address: str, root: Path
) -> None:
    images, answers = world.images, world.answers("mlp")
    for request in (
        {"inputs": images.tolist()},
        {"instances": images.tolist()},
        {"inputs": images.reshape(5, 784).tolist()},
        {"inputs": images[0].tolist()},
        {"inputs": images[0].ravel().tolist()},
    ):
        answer = requests.post(address, json=request, timeout=60)
        answer.raise_for_status()
        predictions = answer.json()["predictions"]
        assert predictions == answers[: len(predictions)] and len(predictions) in (1, 5)
    # As curl sends it.
    header = {"Content-Type": "application/json"}
    boot = (root / "examples" / "boot.json").read_bytes()
    (prediction,) = requests.post(address, boot, headers=header, timeout=60).json()["predictions"]
    assert prediction.keys() == {"class", "probabilities"}

    for inputs, fault in (
        ([[1, 2], [3]], "images: differ in shape, or are no numbers"),
        ((images / 255).tolist(), "images: have pixels of type float64"),
        ([["a"] * 784], "images: have pixels of type <U1"),
        ([[-1] * 784], "image 0: has pixels from -1 to 0"),
    ):
        answer = requests.post(address, json={"inputs": inputs}, timeout=60)
        assert answer.status_code == 400
        assert answer.json()["message"] == f"{fault}; {ADVICE}"
