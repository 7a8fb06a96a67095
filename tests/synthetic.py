"""A workspace with results as the pipeline leaves them, without any training."""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.data import catalogue, prepared
from refashion.runs import write
from refashion.runs.record import Record
from refashion.training import digest

IMAGES = {"train": 120, "validation": 30, "test": 60}
EPOCHS = 4
WIDTHS = {"softmax": (784, 10), "mlp": (784, 16, 10), "dropout": (784, 16, 16, 10)}
TIMINGS = {
    **{"started": "2024-02-03T04:05:06+00:00", "seconds": 8.0, "images_per_second": 60.5},
    **{"seconds_per_epoch": [3.0, 2.0, 2.0, 1.0], "peak_memory_mib": None, "device": "cpu"},
    **{"device_name": "A Processor", "threads": 2, "cpu_capability": "AVX2"},
    **{"torch": "2.9.0", "python": "3.11.7", "platform": "Linux"},
}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_workspace(root: Path, **changes: Any) -> Workspace:
    """Write results of the variants of params.yaml, with changes to its top-level keys.

    Each variant makes `6 + len(name)` mistakes on the 60 test images.
    """
    here = Workspace(Path(__file__).resolve().parents[1])
    workspace = Workspace(root)
    settings = yaml.safe_load(here.params_file.read_text()) | changes
    files.write_text(workspace.params_file, yaml.safe_dump(settings, sort_keys=False))
    files.write_text(root / "dvc.yaml", "stages: {}\n")
    rng = np.random.default_rng(0)
    for name, n in IMAGES.items():
        strokes = rng.integers(0, 255, (10, 4, 4), dtype=np.uint8).repeat(7, 1).repeat(7, 2)
        images = strokes.reshape(10, 784)[np.arange(n) % 10]
        labels = (np.arange(n) % 10).astype(np.uint8)
        prepared.save(root / "data" / "prepared" / name, images, labels)
    for variant in settings["variants"]:
        write_variant(workspace, variant)
        write_evaluation(workspace, variant, wrong=6 + len(variant))
    return workspace


def record(name: str, **changes: Any) -> Record:
    """Record of a variant's run, or of a study's, ``STUDY/NAME``, with changes."""
    study = name.rpartition("/")[0]
    variant = (f"models/{name}", f"reports/evaluation/{name}")
    values: dict[str, Any] = {
        "experiment": study or "fashion_mnist",
        "stage": f"study@{study}" if study else f"evaluate@{name}",
        "folders": (f"reports/studies/{name}",) if study else variant,
        "contract": "portable/2",
        "data": {"dataset": "synthetic"},
        "inputs": {"train": sha256(study)},
        "params": {"lr": 0.1, "seed": 0},
    }
    return Record(name=name, **{**values, **changes})


def write_variant(workspace: Workspace, name: str, outcome: str = "") -> Record:
    """Write what the training of a variant left; another outcome, other weights."""
    p = workspace.params()
    widths = WIDTHS.get(name, WIDTHS["mlp"])
    rng = np.random.default_rng(len(name))
    weights = {}
    for i, shape in enumerate(pairwise(widths)):
        weights[f"layers.{i}.weight"] = torch.tensor(rng.normal(0, 0.1, shape).astype("f4"))
        weights[f"layers.{i}.bias"] = torch.zeros(shape[1])
    weights["layers.0.bias"][0] = len(outcome)
    own = p.variants[name]
    about = record(
        name,
        experiment=p.data.dataset,
        contract="native/cpu",
        data=p.data.model_dump(),
        inputs={part: sha256(f"{p.data} {part}") for part in ("train", "validation")},
        params={
            "hidden": list(own.hidden),
            "lr": own.lr if p.lr is None else p.lr,
            "seed": p.seed,
            "epochs": EPOCHS,
            "numerics": "native",
        },
    )
    history = [
        {
            "train_loss": 1 / e,
            "train_accuracy": 1 - 0.3 / e,
            "validation_loss": 1.1 / e,
            "validation_accuracy": 1 - 0.35 / e,
            "weight_norm": float(e),
            "weights_sha256": sha256(f"{name} {outcome} {e}"),
        }
        for e in range(1, EPOCHS + 1)
    ]
    of_weights = digest.weights(weights)
    return write.write(
        workspace, about, history, digest=of_weights, weights=weights, timings=TIMINGS
    )


def write_evaluation(workspace: Workspace, name: str, wrong: int) -> None:
    """Write an evaluation of a variant with so many wrong answers."""
    classes = catalogue.DATASETS[workspace.params().data.dataset].classes
    n = IMAGES["test"]
    folder = workspace.evaluation / name
    rows = [
        [i, classes[i % 10], classes[(i + (i * 7 % n < wrong)) % 10], 1 - (i % 13) / 20]
        for i in range(n)
    ]
    header = ["index", "actual", "predicted", "confidence"]
    files.write_csv(folder / "predictions.csv", header, rows)
    header = ["class", "precision", "recall", "f1", "support"]
    files.write_csv(folder / "per_class.csv", header, [[c, 0.9, 0.8, 0.85, 6] for c in classes])
    header = ["low", "high", "images", "confidence", "accuracy"]
    files.write_csv(folder / "calibration.csv", header, [[0.9, 1.0, n, 0.95, 1 - wrong / n]])
    metrics = {
        **{"test_accuracy": 1 - wrong / n, "test_top2_accuracy": 1.0, "test_macro_f1": 0.85},
        **{"test_cross_entropy_nats": 0.5, "test_cross_entropy_bits": 0.72},
        **{"test_expected_calibration_error": 0.04, "test_images": n},
    }
    files.write_json(folder / "metrics.json", metrics)


def write_study(workspace: Workspace, study: str, *names: str, parent: str | None = None) -> None:
    """Write runs of a study; with a parent, that run too, of which they are part."""
    for i, name in enumerate([parent, *names] if parent else names):
        write_run(
            workspace,
            f"{study}/{name}",
            [{"train_loss": 1 / e, "l2": i + 1 / e} for e in range(1, EPOCHS + 1)],
            {"train_loss": 1 / EPOCHS, "l2": i + 1 / EPOCHS, "l2_std": 0.1, "seeds": 20},
            params={"weight_decay": float(i)},
            parent=f"{study}/{parent}" if parent and name != parent else None,
        )


def write_run(
    workspace: Workspace,
    name: str,
    history: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
    *,
    params: Mapping[str, Any] | None = None,
    tables: Mapping[str, write.Table] | None = None,
    parent: str | None = None,
) -> None:
    """Write one run of a study, ``STUDY/NAME``."""
    write.write(
        workspace,
        record(name, params={"lr": 0.1, "seed": 0, **(params or {})}, parent=parent),
        history,
        digest=sha256(name.partition("/")[2]),
        tables=tables,
        metrics=metrics,
        timings=TIMINGS,
    )


def write_sweep(workspace: Workspace, name: str, *accuracies: float | None) -> None:
    """Write a sweep of learning rates over the mlp, 0.1 and so on; None: that trial diverged."""
    measures = ("validation_accuracy", "validation_loss", "train_accuracy", "train_loss")
    trials = [
        [dict.fromkeys(measures, accuracy or 0.5) for _ in range(EPOCHS if accuracy else 1)]
        for accuracy in accuracies
    ]
    rates = [round(0.1 * i, 1) for i in range(1, len(trials) + 1)]
    best = max(range(len(trials)), key=lambda i: accuracies[i] or 0)
    rows = [
        [i + 1, rates[i], *(trials[i][-1][m] if accuracies[i] else "" for m in measures)]
        for i in range(len(trials))
    ]
    test = {"test_accuracy": 0.75, "test_cross_entropy_nats": 0.5}
    write_run(
        workspace,
        f"{name}/mlp",
        trials[best],
        {"trials": len(trials), "best_trial": best + 1, **trials[best][-1], **test},
        params={"lr": None, "space": {"lr": rates}, "search": "grid", "variant": "mlp"},
        tables={"trials.csv": (["trial", "lr", *measures], rows)},
    )
    digits = len(str(len(trials)))
    for i, (rate, history) in enumerate(zip(rates, trials, strict=True)):
        diverged = {} if accuracies[i] else {"diverged_in_epoch": 2}
        write_run(
            workspace,
            f"{name}/mlp.trial_{i + 1:0{digits}}",
            history,
            {**history[-1], **diverged},
            params={"lr": rate},
            parent=f"{name}/mlp",
        )
