"""MLflow's own server, as anybody starts it, answers with a registered model."""

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def ask(address: str, inputs: Any) -> tuple[int, Any]:
    """Status and answer to a request."""
    body = json.dumps({"inputs": inputs}).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_server_answers_images_and_refuses_what_is_none(world: Any, address: str) -> None:
    images = world.images.tolist()
    want = world.expected("mlp")
    status, answer = ask(address, images[:1])
    assert status == 200
    assert np.array(answer["predictions"]).tobytes() == want[:1].tobytes()
    status, answer = ask(address, images)
    assert np.array(answer["predictions"]).tobytes() == want.tobytes()

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
        status, answer = ask(address, inputs)
        assert status == 400
        assert reason in answer["message"]
