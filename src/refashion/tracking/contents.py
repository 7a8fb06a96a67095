"""What MLflow is told of a run: settings, metrics, tags, data sets, files and pictures."""

import json
import shutil
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refashion.base.workspace import Workspace
from refashion.runs.run import LOG, MEASURED, Run
from refashion.tracking.context import Context

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Metric

HARDWARE = ("device", "device_name", "threads", "cpu_capability", "torch", "python", "platform")
"""Entries of the log that become tags."""

CONSTANTS = ("epochs", "folds", "seeds", "test_images")
"""Entries of ``metrics.json`` that were given and not measured."""


LONGEST_PARAM = 6000
"""Characters of a param that MLflow keeps; the record has the whole."""


def params(run: Run) -> dict[str, str]:
    """All settings that determined the run, each as far as MLflow keeps it."""
    return {name: text(value)[:LONGEST_PARAM] for name, value in run.settings.items()}


def text(value: Any) -> str:
    """A setting as MLflow has it: text as it is, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def epoch_metrics(run: Run, now: float) -> "list[Metric]":
    """Metrics of every epoch (``epoch/train_loss``), and the speed where it was logged.

    MLflow draws a section of charts for each prefix, ``system/`` last: so the learning curves come
    first. `now`, in seconds since 1970, is the time of a run whose own times were not logged.
    """
    from mlflow.entities import Metric

    start, end = times(run, now)
    seconds = run.log["seconds_per_epoch"] if run.log else [0.0] * len(run.rows)
    moments = [start + passed for passed in accumulate(seconds)]
    epochs = run.history.get("epoch", [])
    metrics = [
        Metric(f"epoch/{name}", value, round(time * 1000), int(epoch))
        for name, column in run.history.items()
        if name != "epoch"
        for value, time, epoch in zip(column, moments, epochs, strict=False)  # some end early
    ]
    if run.log and epochs:
        speed = {
            "system/seconds_per_epoch": sum(seconds) / len(epochs),
            "system/images_per_second": run.log["images_per_second"],
            "system/peak_memory_mib": run.log["peak_memory_mib"],
        }
        metrics += [Metric(k, v, round(end * 1000), 0) for k, v in speed.items() if v is not None]
    return metrics


def final_metrics(run: Run, now: float, model_id: str | None = None) -> "list[Metric]":
    """Metrics measured at the end, of the run and of its logged model."""
    from mlflow.entities import Metric

    return [
        Metric(name, value, round(now * 1000), 0, model_id=model_id)
        for name, value in run.metrics.items()
        if name not in CONSTANTS
    ]


def tags(run: Run, context: Context) -> dict[str, str]:
    """What the run is, where it comes from, and on which hardware it was made, if that is known."""
    record = run.record
    values = {
        "name": record.name,
        "experiment": record.experiment,
        "contract": record.contract,
        "run_key": record.run_key,
        "weights_sha256": record.outputs["weights"],
        "dvc_exp_baseline": context.baseline,
        "mlflow.source.name": f"dvc repro {record.stage}",
        "mlflow.source.type": "LOCAL",
    }
    if context.commit:
        values |= {"commit": context.commit, "dirty": str(context.dirty).lower()}
        values |= {"mlflow.source.git.commit": context.commit}
    values |= {name: (run.log or {}).get(name) for name in HARDWARE}
    return {name: str(value) for name, value in values.items() if value is not None}


def inputs(run: Run) -> "list[DatasetInput]":
    """The sets of examples that the training saw, each with its digest and use."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = str(run.record.data["dataset"])
    uses = {"validation": "validation", "test": "testing"}
    return [
        DatasetInput(
            Dataset(
                name=dataset,
                digest=digest[:12],  # MLflow asks for short ones; the record has the whole
                source_type="local",
                source=json.dumps({"uri": f"{dataset}/{name}"}),
            ),
            tags=[InputTag("mlflow.data.context", uses.get(name, "training"))],
        )
        for name, digest in run.record.inputs.items()
    ]


def times(run: Run, now: float) -> tuple[float, float]:
    """Start and end of the training in seconds since 1970; now, if they were not logged."""
    if run.log is None:
        return now, now
    started = datetime.fromisoformat(run.log["started"]).timestamp()
    return started, started + run.log["seconds"]


def write_training(run: Run, context: Context, workspace: Workspace, folder: Path) -> None:
    """Copy to `folder` what the training left, and all it takes to run it again."""
    sources = [file for file in run.files if file.name not in MEASURED]
    sources += [workspace.params_file, workspace.root / "dvc.yaml", workspace.root / "dvc.lock"]
    for file in filter(Path.exists, sources):
        shutil.copyfile(file, folder / file.name)
    if run.log:
        shutil.copyfile(run.log_file, folder / LOG)
    if context.dirty:
        (folder / "uncommitted.diff").write_bytes(context.diff)
    (folder / "environment.txt").write_text(context.environment, encoding="utf-8")


def write_measured(run: Run, workspace: Workspace, folder: Path) -> None:
    """Copy to `folder` what was measured after the training, and draw the run's pictures."""
    from refashion.pictures import of_run

    for name in filter(run.has, MEASURED):
        shutil.copyfile(run.file(name), folder / name)
    for name, picture in of_run.draw(run, workspace).items():
        pictures = folder / "figures"
        pictures.mkdir(exist_ok=True)
        (pictures / f"{name}.png").write_bytes(picture)
