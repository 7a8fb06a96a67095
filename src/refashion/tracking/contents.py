"""What a run carries: settings, metrics, tags, data sets, files and pictures."""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base import paths
from refashion.data import catalogue, prepared
from refashion.tracking.context import Context
from refashion.tracking.results import ArmResults, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import DatasetInput, Metric, Param

DIGEST_LENGTH = 12
"""MLflow asks for short digests of data sets; the whole one is in the tag and the record."""

HARDWARE = ("device", "device_name", "threads", "cpu_capability", "torch", "python", "platform")


def params(results: Results) -> "list[Param]":
    """All settings that determined the training."""
    from mlflow.entities import Param

    return [
        Param(k, v if isinstance(v, str) else json.dumps(v)) for k, v in results.settings.items()
    ]


def training_metrics(results: Results, now: float) -> "list[Metric]":
    """Metrics of every epoch (step: epoch), and the speed where it was logged."""
    from mlflow.entities import Metric

    log = results.log
    history = dict(results.history)
    epochs = history.pop("epoch", [])  # a measure may end before the last
    moment, moments = times(results, now)[0], []
    for seconds in log["seconds_per_epoch"] if log else [0.0] * len(epochs):
        moment += seconds
        moments.append(moment)
    metrics = [
        Metric(name, value, round(moment * 1000), int(epoch))
        for name, values in history.items()
        for value, moment, epoch in zip(values, moments, epochs, strict=False)
    ]
    if log and epochs:
        speed = {
            "seconds_per_epoch": sum(log["seconds_per_epoch"]) / len(epochs),
            "images_per_second": log["images_per_second"],
            "peak_memory_mib": log["peak_memory_mib"],
        }
        known = {name: value for name, value in speed.items() if value is not None}
        metrics += [Metric(name, v, round(moment * 1000), 0) for name, v in known.items()]
    return metrics


def evaluation_metrics(results: Results, now: float) -> "list[Metric]":
    """Metrics of the whole training."""
    from mlflow.entities import Metric

    values = results.final_metrics
    return [Metric(name, value, round(now * 1000), 0) for name, value in values.items()]


def tags(results: Results, context: Context) -> dict[str, str]:
    """Where the result comes from, and what it was made on where that was logged."""
    found = {
        "variant": results.variant,
        "numerics": results.record["contract"],
        "dataset_digest": next(iter(results.record["inputs"].values())),
        "dvc_exp": context.experiment,
        "dvc_exp_baseline": context.baseline,
        "mlflow.source.name": results.source,
        "mlflow.source.type": "LOCAL",
    }
    if context.commit:
        dirty = str(context.dirty).lower()
        found |= {"git_commit": context.commit, "git_dirty": dirty}
        found |= {"mlflow.source.git.commit": context.commit, "mlflow.source.git.dirty": dirty}
    found |= {name: (results.log or {}).get(name) for name in HARDWARE}
    return {name: str(value) for name, value in found.items() if value is not None}


def inputs(results: Results) -> "list[DatasetInput]":
    """List every set of examples, with its digest and use."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if isinstance(results, ArmResults):
        return [
            DatasetInput(
                Dataset(
                    name=f"{results.study}-{name}",
                    digest=digest[:DIGEST_LENGTH],
                    source_type="local",
                    source=json.dumps({"uri": results.source}),
                ),
                tags=[InputTag("mlflow.data.context", "testing" if name == "test" else "training")],
            )
            for name, digest in results.record["inputs"].items()
        ]
    test = prepared.digest(prepared.load(results.file(paths.TEST)))
    digests = {**results.record["inputs"], "test": test}
    uses = {"train": "training", "validation": "validation", "test": "testing"}
    return [
        DatasetInput(
            Dataset(
                name=results.data.dataset,
                digest=digests[split][:DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": f"data/prepared/{split}"}),
                profile=json.dumps({"num_rows": count}),
            ),
            tags=[InputTag("mlflow.data.context", uses[split])],
        )
        for split, count in results.images.items()
    ]


def times(results: Results, now: float) -> tuple[float, float]:
    """Start and end of the training in seconds since the epoch; now, if they were not logged."""
    if results.log is None:
        return now, now
    started = datetime.fromisoformat(results.log["started"]).timestamp()
    return started, started + results.log["seconds"]


def write_training(results: Results, context: Context, folder: Path) -> None:
    """Copy to `folder` what the training left, and all it takes to run it again."""
    for path in (*results.training_files, paths.PARAMS, paths.ROOT / "dvc.yaml"):
        shutil.copyfile(results.file(path), folder / path.name)
    lock = results.root / "dvc.lock"
    if lock.exists():
        shutil.copyfile(lock, folder / lock.name)
    if results.log:
        shutil.copyfile(results.file(results.log_path), folder / "training_log.json")
    if context.dirty:
        (folder / "uncommitted.diff").write_bytes(context.diff)
    (folder / "environment.txt").write_text(context.environment, encoding="utf-8")


def write_evaluation(results: Results, folder: Path) -> None:
    """Copy to `folder` what the evaluation left."""
    for path in results.evaluation_files:
        source = results.file(path)
        shutil.copyfile(source, folder / source.name)


def draw(results: Results, folder: Path) -> None:
    """Draw the training and what came of it, each picture to a file in `folder`."""
    from refashion.tracking import figures, study_figures

    if isinstance(results, ArmResults):
        picture = study_figures.draw(results.root, results.study)
        (folder / f"{results.study}.png").write_bytes(picture)
    else:
        figures.save(_pictures(results), folder)


def _pictures(results: Results) -> "dict[str, Figure | None]":
    """The training of a variant and the answers of its model."""
    from safetensors.numpy import load_file

    from refashion.tracking import figures

    classes = catalogue.DATASETS[results.data.dataset].classes
    images = prepared.load(results.file(paths.TEST)).images
    weights = load_file(results.file(paths.weights(results.variant)))["layers.0.weight"]
    answers = results.predictions
    actual, predicted = answers["actual"], answers["predicted"]
    confidence = list(map(float, answers["confidence"]))
    title = f"{results.variant} on {results.data.dataset}"
    return {
        "learning_curves": figures.learning_curves(title, results.history),
        "confusion_matrix": figures.confusion_matrix(title, classes, actual, predicted),
        "predictions": figures.predictions(title, images, actual, predicted),
        "confident_mistakes": figures.confident_mistakes(
            title, images, actual, predicted, confidence
        ),
        "first_layer": figures.first_layer(title, weights, classes),
    }
