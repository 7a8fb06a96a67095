"""What a training leaves on disk: canonical, complete, the same every time."""

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from refashion import selftest
from refashion.training import digest, loop, record

SETTINGS = replace(
    selftest.INSTANCES["dropout"], hidden=(8, 4), batch_size=64, epochs=2, numerics="portable"
)
INPUTS = {"train": "1" * 64, "validation": "2" * 64}


def train(watched: int = 100) -> loop.Training:
    data = selftest.examples(torch.device("cpu"))
    images, labels = data.inputs.numpy(), data.targets.numpy().astype(np.uint8)
    first = SimpleNamespace(images=images[:200], labels=labels[:200])
    second = SimpleNamespace(images=images[200 : 200 + watched], labels=labels[200 : 200 + watched])
    return loop.train(SETTINGS, first, second, device="cpu")


def save(folder: Path, training: loop.Training) -> SimpleNamespace:
    files = SimpleNamespace(
        weights=folder / "models" / "weights.safetensors",
        history=folder / "models" / "history.csv",
        record=folder / "models" / "record.json",
        log=folder / "logs" / "v.json",
    )
    record.save(training, variant="v", settings=SETTINGS, inputs=INPUTS, **vars(files))
    return files


@pytest.fixture(scope="module")
def training() -> loop.Training:
    return train()


def test_weights_read_back(training: loop.Training, tmp_path: Path) -> None:
    weights = load_file(save(tmp_path, training).weights)
    assert digest.weights(weights) == digest.weights(training.weights)
    assert {name: tuple(t.shape) for name, t in weights.items()} == {
        "layers.0.weight": (784, 8),
        "layers.0.bias": (8,),
        "layers.1.weight": (8, 4),
        "layers.1.bias": (4,),
        "layers.2.weight": (4, 10),
        "layers.2.bias": (10,),
    }


def test_history_is_one_row_an_epoch(training: loop.Training, tmp_path: Path) -> None:
    data = save(tmp_path, training).history.read_bytes()
    assert b"\r" not in data and data.endswith(b"\n")
    rows = list(csv.DictReader(data.decode().splitlines()))
    assert list(rows[0]) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "weight_norm",
        "weights_sha256",
    ]
    for row, kept in zip(rows, training.history, strict=True):
        assert row["epoch"] == str(kept.epoch) and row["weights_sha256"] == kept.weights_sha256
        for column in ("train_loss", "validation_accuracy", "weight_norm"):
            assert row[column] == repr(getattr(kept, column))


def test_history_without_validation_leaves_its_cells_empty(tmp_path: Path) -> None:
    rows = list(csv.DictReader(save(tmp_path, train(0)).history.open()))
    for row in rows:
        assert row["validation_loss"] == row["validation_accuracy"] == ""
        assert row["train_loss"] and row["weight_norm"]


def test_record(training: loop.Training, tmp_path: Path) -> None:
    files = save(tmp_path, training)
    text = files.record.read_text()
    found = json.loads(text)
    assert text == json.dumps(found, indent=2, sort_keys=True) + "\n"
    params = {
        "hidden": [8, 4],
        "dropout": [0.2, 0.5],
        "lr": 0.5,
        "seed": 0,
        "epochs": 2,
        "batch_size": 64,
        "weight_decay": 0.0,
        "momentum": 0.0,
        "numerics": "portable",
        "num_inputs": 784,
        "num_outputs": 10,
        "initialisation": "small_normal",
        "loss": "cross_entropy",
        "optimizer": "sgd",
    }
    determined = {
        "contract": "portable/2",
        "inputs": INPUTS,
        "params": params,
        "variant": "v",
    }
    compact = json.dumps(determined, sort_keys=True, separators=(",", ":"))
    assert found == {
        **determined,
        "outputs": {
            "history": hashlib.sha256(files.history.read_bytes()).hexdigest(),
            "weights": digest.weights(training.weights),
        },
        "run_key": hashlib.sha256(compact.encode()).hexdigest(),
    }


def test_the_log_names_its_run(training: loop.Training, tmp_path: Path) -> None:
    files = save(tmp_path, training)
    log, kept = json.loads(files.log.read_text()), json.loads(files.record.read_text())
    assert log == {
        **training.timings,
        "run_key": kept["run_key"],
        "weights": kept["outputs"]["weights"],
    }


def test_all_but_the_log_comes_out_the_same_again(training: loop.Training, tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", training), save(tmp_path / "b", train())
    for name in ("weights", "history", "record"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").rglob("*") if p.is_file()) == [
        "history.csv",
        "record.json",
        "v.json",
        "weights.safetensors",
    ]


def test_the_run_key_is_stable_under_the_order_of_keys() -> None:
    assert record.run_key({"a": 1, "b": {"c": [1, 2], "d": None}}) == record.run_key(
        {"b": {"d": None, "c": [1, 2]}, "a": 1}
    )


@pytest.mark.parametrize("change", [{"a": 2}, {"b": [2, 1]}, {"c": 0}])
def test_the_run_key_moves_with_every_value(change: dict[str, Any]) -> None:
    known = {"a": 1, "b": [1, 2]}
    assert record.run_key(known | change) != record.run_key(known)
