"""What people see first in MLflow: names, descriptions, and the columns of the table of runs."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from refashion.pictures.points import joined
from refashion.runs import record
from refashion.runs.run import TRIALS, Run
from refashion.tracking.contents import CONSTANTS, text

KEY = "refashion"
"""Of the shared view in the address of the table of runs."""

TAG = f"mlflow.sharedViewState.{KEY}"

DESCRIPTION = "mlflow.note.content"
"""The tag of a run or an experiment that MLflow's pages show as its description."""

HEADLINES = ("test_accuracy", "test_cross_entropy_nats")
"""Metrics of classifiers that people see first: in the table of runs, and drawn of sweeps."""

PHRASES = {
    "hidden": "hidden layers {}",
    "dropout": "dropout {}",
    "depths": "means over 1 to {} hidden layers",
    "initialisation": "weights from {}",
    "optimizer": "optimizer {}",
    "lr": "learning rate {}",
    "momentum": "momentum {}",
    "weight_decay": "weight decay {}",
    "batch_size": "batches of {}",
    "epochs": "{} epochs",
    "seeds": "mean of {} seeds",
    "fold": "fold {}",
    "folds": "mean of {} folds",
    "seed": "seed {}",
}
"""Settings in words, in the order of a run's description."""


def run_name(run: Run, swept: Sequence[str], committed: bytes) -> str:
    """Name a run by its variant and what sets it apart: ``mlp lr=0.03``.

    A run that another one sums up is set apart by the settings `swept`, which differ among those;
    any other by what differs from its committed record. `committed` is the content of that;
    empty if there is none.
    """
    name = run.name.rpartition("/")[2]
    if run.record.parent and swept:
        settings = {key: run.settings.get(key) for key in swept}
        return _named(run.record.parent.rpartition("/")[2], settings)
    try:
        before = record.read(committed)
    except ValueError:  # there is none, or it is damaged
        return name
    if before is None:
        return name
    changes = {
        key: value
        for key, value in run.settings.items()
        if value != (old := before.settings.get(key)) and (_is_set(value) or _is_set(old))
        if value != run.record.experiment  # which is the data set's name, and stands above
    }
    return _named(name, changes)


def _named(name: str, settings: Mapping[str, Any]) -> str:
    """A name with settings, as far as they are short."""
    words = textwrap.shorten(joined(settings, text), 80, placeholder=" ...")
    return f"{name} {words}".rstrip()


def run_description(run: Run, swept: Sequence[str], run_id: str) -> str:
    """Settings in words, how to make the run again, and where to read on (Markdown).

    Of a run that sums up others, also which settings those differ in: `swept`.
    """
    words = [
        phrase.format(value)
        for key, phrase in PHRASES.items()
        if _is_set(value := run.settings.get(key)) or (key, value) == ("seed", 0)
        if not (key == "folds" and run.record.parent)
    ]
    summed_up = f"{summary(run)}\n\n" if run.has(TRIALS) else ""
    if swept and not (summed_up or run.record.parent):
        summed_up = f"Its child runs differ in {', '.join(swept)}.\n\n"
    return (
        f"`{run.name}` on {run.record.data['dataset']}: {', '.join(words)}.\n\n{summed_up}"
        f"Make it again: `refashion reproduce {run_id}` "
        f"(README, *Reproduce any run*). More: README, *{_section(run)}*."
    )


def summary(run: Run) -> str:
    """What was swept and how, and the best trial, of a run that sums a sweep up."""
    space, metrics, trials = run.settings["space"], run.metrics, run.table(TRIALS)
    swept = "; ".join(f"{name} {_values(values)}" for name, values in space.items())
    best = trials[int(metrics["best_trial"]) - 1]
    settings = ", ".join(f"{k}={v}" for k, v in best.items() if k in space or k == "epochs")
    diverged = sum(not trial["validation_accuracy"] for trial in trials)
    return (
        f"{len(trials)} trials ({run.settings['search']}): {swept}. The best is trial "
        f"{best['trial']} ({settings}): validation accuracy {metrics['validation_accuracy']:.4f}, "
        f"test accuracy {metrics['test_accuracy']:.4f}."
        f"{f' Diverged: {diverged}.' if diverged else ''}"
    )


def _values(values: Any) -> str:
    """The values of a setting that were to be tried."""
    if isinstance(values, dict):
        ((kind, (low, high)),) = values.items()
        return f"from {low:g} to {high:g}{' (log)' * (kind == 'log')}"
    return textwrap.shorten(", ".join(map(text, values)), 80, placeholder=" ...")


def experiment_tags(run: Run, swept: Sequence[str]) -> dict[str, str]:
    """Description and shared view of the experiment that a run belongs to, with `swept` settings.

    The view is of version 3.17 of MLflow's pages, which read its state as JSON.
    """
    study = _study(run)
    what = f"The study *{study}*: a run for each of its settings in params.yaml"
    if not study:
        what = "Classifiers of *Dive into Deep Learning*, chapters 3 and 4: a run for each variant "
        what += "in params.yaml, and for each change of its settings"
    measured = [name for name in run.metrics if name not in CONSTANTS]
    held_out = [name for name in measured if name.startswith(("test_", "validation_"))]
    headlines = [name for name in HEADLINES if name in measured]
    columns = [
        *("attributes.`Created`", "tags.`dvc_exp`", "tags.`dvc_exp_removed`"),  # where there is any
        "tags.`name`",
        *(f"params.`{name}`" for name in dict.fromkeys(["lr", *swept])),
        *(f"metrics.`{name}`" for name in headlines or held_out or measured),
    ]
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": columns,
        "columnOrder": columns,
        # In pixels, of a font of about 6 for a character.
        "columnWidths": {key: 6 * len(key) for key in columns if key.startswith("metrics")},
    }
    return {
        DESCRIPTION: f"{what}.\n\nMake a run again, bit for bit: `refashion reproduce RUN_ID`. "
        f"Compare: `refashion compare RUN_ID RUN_ID`. More: README, *{_section(run)}*.",
        TAG: json.dumps(state),
    }


def address(server: str, experiment_id: str) -> str:
    """Where a server shows the runs of an experiment in that view."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?viewStateShareKey={KEY}&workflowType=machine_learning"


def _is_set(value: Any) -> bool:
    """Whether a setting does anything: no zero, no empty list and no list of zeros."""
    return any(value) if isinstance(value, list) else bool(value)


def _study(run: Run) -> str:
    """The experiment of a run; empty, if that is its data set's, with all classifiers."""
    experiment = run.record.experiment
    return "" if experiment == run.record.data["dataset"] else experiment


def _section(run: Run) -> str:
    """Section of the README that tells of a run."""
    return "Studies" if _study(run) else "Change a number"
