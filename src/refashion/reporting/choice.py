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
    those of an experiment of MLflow or DVC, with a tag, ``KEY=VALUE``, or both.
    """
    runs = {text: published.find(text, store) for text in texts}
    filters = []
    if experiment is not None:
        filters.append(f"experiment {experiment}")
        of_mlflow = published.with_tag("experiment", experiment, store)
        filtered = of_mlflow + published.find(experiment, store)
    if tag is not None:
        key, _, value = tag.partition("=")
        candidates = filtered if filters else published.complete(store)
        filtered = [run for run in candidates if run.data.tags.get(key) == value]
        filters.append(f"tag {tag}")
    if filters:
        runs[" with ".join(filters)] = filtered
    for name, chosen in runs.items():
        if not chosen:
            raise UserError(
                f"{name}: there is no such run at {store.uri}; see all runs with `make ui`, or "
                "name another store in MLFLOW_TRACKING_URI"
            )
    return list({run.info.run_id: run for chosen in runs.values() for run in chosen}.values())
