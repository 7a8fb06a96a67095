"""Made-up results: the files that the pipeline leaves, without any training; and a server."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from refashion.base import files, params, paths
from refashion.data import catalogue, prepared
from refashion.evaluation import predictions
from refashion.tracking.results import Results

IMAGES = {"train": 120, "validation": 30, "test": 60}
EPOCHS = 4


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_results(root: Path, **trained: str) -> None:
    """Write all that the pipeline leaves in a checkout, for the variants of its params.yaml.

    Keywords give the outcome of a variant's training, for results that differ from the usual.
    """
    (root / "dvc.yaml").write_text("stages: {}\n")
    if not (root / "params.yaml").exists():
        shutil.copyfile(paths.PARAMS, root / "params.yaml")
    p = params.load(root / "params.yaml")
    rng = np.random.default_rng(0)

    def here(path: Path) -> Path:
        return root / path.relative_to(paths.ROOT)

    labels = {name: (np.arange(n) % 10).astype(np.uint8) for name, n in IMAGES.items()}
    for name, n in IMAGES.items():
        strokes = rng.integers(0, 255, (10, 4, 4), dtype=np.uint8).repeat(7, 1).repeat(7, 2)
        images = strokes.reshape(10, 784)[np.arange(n) % 10]
        prepared.save(here(paths.PREPARED) / name, images, labels[name])
    files.write_json(here(paths.DATA_SUMMARY), {name: {"images": n} for name, n in IMAGES.items()})
    inputs = {name: digest(f"{p.data} {name}") for name in ("train", "validation")}
    for variant in p.variants:
        settings = json.loads(json.dumps(p.resolved(variant)))
        run_key = digest(json.dumps([variant, settings, inputs]))
        widths = [784, *settings["hidden"], 10]
        tensors: dict[str, Any] = {}
        for i in range(len(widths) - 1):
            tensors[f"layers.{i}.weight"] = rng.normal(0, 0.1, widths[i : i + 2]).astype("f4")
            tensors[f"layers.{i}.bias"] = np.zeros(widths[i + 1], "f4")
        tensors["layers.0.bias"][0] = len(trained.get(variant, ""))
        here(paths.weights(variant)).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, here(paths.weights(variant)))
        weights = hashlib.sha256(here(paths.weights(variant)).read_bytes()).hexdigest()
        curve = [
            [e, 1 / e, 1 - 0.3 / e, 1.1 / e, 1 - 0.35 / e, float(e), digest(f"{weights} {e}")]
            for e in range(1, EPOCHS + 1)
        ]
        names = ["epoch", "train_loss", "train_accuracy", "validation_loss"]
        names += ["validation_accuracy", "weight_norm", "weights_sha256"]
        files.write_csv(here(paths.history(variant)), names, curve)
        outputs = {"history": digest(str(curve)), "weights": weights}
        files.write_json(
            here(paths.record(variant)),
            {
                **{"contract": "native/cpu", "inputs": inputs, "outputs": outputs},
                **{"params": settings, "run_key": run_key, "variant": variant},
            },
        )
        files.write_json(
            here(paths.training_log(variant)),
            {
                **{"run_key": run_key, "weights": weights, "started": "2024-02-03T04:05:06+00:00"},
                **{"seconds": 9.0, "seconds_per_epoch": [3.0, 2.0, 2.0, 1.0]},
                **{"images_per_second": 60.5, "peak_memory_mib": None, "device": "cpu"},
                **{"device_name": "A Processor", "threads": 2, "cpu_capability": "AVX2"},
                **{"torch": "2.9.0", "python": "3.11.7", "platform": "Linux"},
            },
        )
        write_evaluation(root, variant, wrong=6 + len(variant))


def write_evaluation(root: Path, variant: str, wrong: int) -> None:
    """Write an evaluation with so many wrong answers."""
    p = params.load(root / "params.yaml")
    classes = catalogue.DATASETS[p.data.dataset].classes
    n = IMAGES["test"]
    actual = [classes[i % 10] for i in range(n)]
    predicted = [classes[(i + (i * 7 % n < wrong)) % 10] for i in range(n)]
    confidence = [1 - (i % 13) / 20 for i in range(n)]
    results = Results(root=root, variant=variant)
    predictions.write(results._here(paths.predictions(variant)), actual, predicted, confidence)
    per_class = {"precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 6}
    files.write_json(
        results._here(paths.metrics(variant)),
        {
            **{"accuracy": 1 - wrong / n, "top2_accuracy": 1.0, "images": n, "macro_f1": 0.85},
            **{"cross_entropy_nats": 0.5, "per_class": dict.fromkeys(classes, per_class)},
        },
    )
    header = ["low", "high", "images", "confidence", "accuracy"]
    rows = [[0.9, 1.0, n, 0.95, 1 - wrong / n]]
    files.write_csv(results._here(paths.calibration(variant)), header, rows)


def environment(**variables: str) -> dict[str, str]:
    """Environment of a process that runs this checkout's code, and tells nobody about it."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "DVC_"))}
    fixed = {"PYTHONPATH": str(paths.ROOT / "src"), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**own, **fixed, **variables}


def publisher(root: Path, *variants: str, **variables: str) -> "subprocess.Popen[str]":
    """Start a process that publishes the results in `root`."""
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("publisher.py")), str(root), *variants],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    """Find a port of the loopback interface that nobody uses."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def running(command: list[str], health: str, log: Path, **options: Any) -> Iterator[None]:
    """Run a server, from when its page `health` answers on."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(health, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, log.read_text()
                time.sleep(0.1)
        else:
            raise AssertionError(log.read_text())
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


@contextmanager
def serving(database: Path) -> Iterator[str]:
    """Run an MLflow server over a database, artifacts beside it, and give its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(database.with_suffix(".artifacts"))]
    log = database.with_suffix(".log")
    with running(command, f"{address}/health", log, env=environment()):
        yield address
