"""A sweep: one variant trained with many settings, the best chosen by validation accuracy."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.base.params.sweeps import SweepParams
from refashion.base.progress import progress
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.data.prepared import Split
from refashion.runs.run import TRIALS
from refashion.runs.write import Table
from refashion.studies import classifiers, executors, study, trials
from refashion.studies.executors import Execute
from refashion.studies.search import Assignment, search
from refashion.studies.study import Headline, Trained
from refashion.studies.trials import Done, Splits
from refashion.training import device as devices
from refashion.training import portable
from refashion.training.engine import Examples
from refashion.training.loop import Model
from refashion.training.settings import Settings

STAGE = "stages/sweep/dvc.yaml:sweep@{}"
NOTES = (
    "One variant, trained with many settings. The best trial is chosen by its accuracy on the "
    "validation images; it alone is measured on the test images, once.",
)
COLUMNS = ("validation_accuracy", "validation_loss", "train_accuracy", "train_loss")


def run(
    workspace: Workspace, params: Params, name: str, execute: Execute = executors.in_this_process
) -> Headline:
    """Train the trials of the sweep `name`, and give the accuracies of the best.

    Each trial is a run. One more sums them up: its history is that of the best trial, which is
    trained once more to be measured on the test set.

    Raises
    ------
    UserError
        If there is nothing to validate on, native trainings would leave this process, every trial
        diverges, or the best one comes out otherwise when it is trained again.
    """
    sweep, base = params.sweeps[name], classifiers.settings(params, params.sweeps[name].variant)
    splits, inputs = study.splits(workspace)
    if not len(splits["validation"].labels):
        raise UserError(
            f"sweeps.{name}: the best trial is chosen by validation accuracy, and data.validation "
            "holds out no image; set it above 0"
        )
    if base.numerics == "native" and execute is not executors.in_this_process:
        raise UserError(
            f"sweeps.{name}: numerics: native has other bits with other threads and on other "
            "machines; use portable, or sweep in one process, without Ray"
        )
    done = Done(workspace.trials, sweep.variant, params.device, inputs)
    made: dict[Settings, Trained] = {}
    train = partial(_train, name, done, splits, params.device, execute)

    def measure(assignments: Sequence[Assignment]) -> list[float]:
        chosen = [_settings(base, params, sweep, assignment) for assignment in assignments]
        new = [settings for settings in dict.fromkeys(chosen) if settings not in made]
        made.update(zip(new, train(new), strict=True))
        return [_rank(made[settings])[0] for settings in chosen]

    search(sweep, params.epochs, params.seed, measure)
    trained = list(made.values())
    best = max(trained, key=_rank)  # the first of equals
    if best.training.diverged:
        raise UserError(f"sweeps.{name}: every trial diverged; sweep smaller learning rates")
    test = prepared.load(workspace.test)
    write_run = partial(
        study.write_run, workspace, data=params.data.model_dump(), stage=STAGE.format(name)
    )
    whole = f"{name}/{sweep.variant}"
    metrics = {
        "trials": len(trained),
        "best_trial": trained.index(best) + 1,
        **study.last_measures([best]),
        "test_accuracy": _test_accuracy(name, best, splits, test, params.device),
    }
    fixed = {k: v for k, v in base.as_dict().items() if k not in sweep.space}
    write_run(
        whole,
        trained,
        inputs={**inputs, "test": prepared.digest(test)},
        params={**fixed, **sweep.model_dump(mode="json")},
        history=best.rows,
        metrics=metrics,
        tables={TRIALS: _table(sweep, trained)},
    )
    digits = len(str(len(trained)))
    for number, trial in enumerate(trained, start=1):
        write_run(
            f"{whole}.trial_{number:0{digits}}",
            [trial],
            inputs=inputs,
            params=trial.training.settings.as_dict(),
            metrics=_metrics(trial),
            parent=whole,
        )
    chosen = ("validation_accuracy", "test_accuracy")
    return {metric: {sweep.variant: metrics[metric]} for metric in chosen}


def _settings(
    base: Settings, params: Params, sweep: SweepParams, assignment: Assignment
) -> Settings:
    """Settings of a trial; other layers have the variant's dropout, if it names any."""
    own = params.variants[sweep.variant].dropout or ()
    return replace(base, **{"dropout": own, **assignment})


def _train(
    name: str,
    done: Done,
    splits: Splits,
    device: str,
    execute: Execute,
    new: Sequence[Settings],
) -> list[Trained]:
    """Train those trials that were not made before, in whatever order, and give all of them."""
    made = {settings: done.get(settings) for settings in new}
    missing = [settings for settings, trial in made.items() if trial is None]
    if there := len(new) - len(missing):
        print(f"{name}: {there} of {len(new)} trials were made before", file=sys.stderr)
    with progress(name, sum(settings.epochs for settings in missing), "epochs") as advance:
        for stack, results in execute(missing, splits, device, advance):
            for settings, result in zip(stack, results, strict=True):
                done.put(settings, result)
                made[settings] = trials.restore(settings, result)
    return [trial for trial in made.values() if trial]


def _rank(trial: Trained) -> tuple[float, float]:
    """What the best trial has most of: validation accuracy, then likelihood."""
    if trial.training.diverged:
        return 0.0, float("-inf")
    last = trial.training.history[-1]
    return last.validation_accuracy, -last.validation_loss


def _metrics(trial: Trained) -> dict[str, float]:
    """Measures of a trial's last epoch, and the epoch in which it diverged, if it did."""
    metrics = study.last_measures([trial]) if trial.rows else {}
    if trial.training.diverged:
        metrics["diverged_in_epoch"] = len(trial.rows) + 1
    return metrics


def _test_accuracy(name: str, best: Trained, splits: Splits, test: Split, device: str) -> float:
    """Train the best trial once more, and measure it on the test set."""
    settings = best.training.settings
    model = Model(settings=settings, **study.examples(splits))
    (again,) = study.train(f"{name}: the best trial again", [model], device)
    if again.training.digest != best.training.digest:
        raise UserError(
            f"sweeps.{name}: the best trial ({settings}) came out otherwise when it was trained "
            "again; run `python -m refashion.selftest`, delete build/trials and run the sweep again"
        )
    tested = Examples.of_images(test.images, test.labels)
    outputs = portable.outputs(
        again.training.weights, tested.inputs.to(devices.resolve(device))
    ).cpu()
    correct = int((outputs.argmax(1) == tested.targets).sum())
    return correct / len(tested)


def _table(sweep: SweepParams, trained: Sequence[Trained]) -> Table:
    """Settings and measures of every trial; those of one that diverged are empty."""
    swept = [*sweep.space, *(["epochs"] if sweep.search == "halving" else [])]
    rows = []
    for number, trial in enumerate(trained, start=1):
        values = trial.training.settings.as_dict()
        cells = [values[k] if isinstance(values[k], int | float) else str(values[k]) for k in swept]
        measures = {} if trial.training.diverged else trial.rows[-1]
        rows.append(
            [number, *cells, *(measures.get(c, "") for c in COLUMNS), trial.training.digest]
        )
    return ["trial", *swept, *COLUMNS, "weights_sha256"], rows
