"""Choice of the published runs to compare."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from refashion.base.errors import UserError
from refashion.tracking import published
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run


def choose(
    texts: Iterable[str], experiment: str | None, tag: str | None, store: Store
) -> "list[Run]":
    """All published runs that are asked for, each once; `UserError` if something means no run.

    They are those of `texts`, which are ids, beginnings of ids or names of DVC experiments, and
    those of an experiment of MLflow or DVC, with a tag, ``KEY=VALUE``, or both. Where that means
    runs and others that sum them up, `comparable` chooses.
    """
    filtered = runs_of_store = published.complete(store)
    runs = {text: published.meant(text, runs_of_store) for text in texts}
    filters = []
    if experiment is not None:
        filters.append(f"experiment {experiment}")
        named = store.client.get_experiment_by_name(experiment)  # whatever a tag says
        own = named and named.experiment_id
        filtered = [run for run in runs_of_store if run.info.experiment_id == own]
        filtered += published.meant(experiment, runs_of_store)
    if tag is not None:
        filters.append(f"tag {tag}")
        key, _, value = tag.partition("=")
        filtered = [run for run in filtered if run.data.tags.get(key) == value]
    if filters:
        runs[" with ".join(filters)] = filtered
    for name, chosen in runs.items():
        if not chosen:
            raise UserError(
                f"{name}: there is no such run at {store.uri}; see all runs with `make ui`, or "
                "name another store in MLFLOW_TRACKING_URI"
            )
    groups = map(comparable, runs.values())
    return list({run.info.run_id: run for group in groups for run in group}.values())


def comparable(runs: "list[Run]") -> "list[Run]":
    """Of runs and those that sum them up, the ones of a kind.

    They are those that no other sums up, as the variants of a k-fold validation; if there is but
    one, as in a sweep, those that it sums up.
    """
    ids = {run.info.run_id for run in runs}
    parts = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]
    whole = [run for run in runs if run not in parts]
    return parts if parts and len(whole) == 1 else whole
