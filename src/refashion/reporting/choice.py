"""Which runs to compare."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.tracking import runs
from refashion.tracking.publish import COMPLETE, experiments
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


def choose(
    texts: Iterable[str], experiment: str | None, tag: str | None, store: Store
) -> "list[Run]":
    """Find all runs of variants that are meant, each once.

    Parameters
    ----------
    texts : iterable of str
        Ids of runs, their beginnings, or names of DVC experiments.
    experiment : str or None
        An experiment, MLflow's or DVC's, whose runs are all meant.
    tag : str or None
        ``KEY=VALUE`` of a tag of the runs that are meant.
    store : Store
        Where to look.

    Raises
    ------
    UserError
        If one of these means no run, or none of a variant.
    """
    asked = {text: runs.find(text, store) for text in texts}
    if experiment is not None:
        asked[f"experiment {experiment}"] = _in_experiment(experiment, store)
    if tag is not None:
        key, _, value = tag.partition("=")
        asked[f"tag {tag}"] = runs.with_tag(key, value, store)
    for name, found in asked.items():
        if not found:
            raise UserError(
                f"{name}: there is no such run at {store.uri}; see all runs with `make ui`, or "
                "name another store in MLFLOW_TRACKING_URI"
            )
        if all(map(runs.of_a_study, found)):
            raise UserError(
                f"{name}: is of a study, whose arms are compared on a page of their own: "
                "make report"
            )
    every = {run.info.run_id: run for found in asked.values() for run in found}
    return [run for run in every.values() if not runs.of_a_study(run)]


def _in_experiment(name: str, store: Store) -> "list[Run]":
    of_mlflow = store.client.get_experiment_by_name(name)
    return [
        run
        for run in runs.with_tag("published", COMPLETE, store)
        if name in experiments(run)
        or (of_mlflow and run.info.experiment_id == of_mlflow.experiment_id)
    ]
