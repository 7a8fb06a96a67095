"""What ``import refashion`` offers: the models and results of the checkout one stands in."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.serving import predict
from refashion.serving.predict import Model
from refashion.tracking import published, store


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What a run was and how it went, which `refashion.results` gives.

    Attributes
    ----------
    name : str
        The variant's, or ``STUDY/NAME``.
    history : DataFrame
        Losses, accuracies and norms (columns) by epoch (index); NaN where there is none.
    metrics : Series
        On the test set, or those of a study, by name.
    settings : dict
        Of the training and its data, by their names in ``params.yaml``.
    """

    name: str
    history: pd.DataFrame = field(repr=False)
    metrics: pd.Series = field(repr=False)
    settings: dict[str, Any] = field(repr=False)


def load(model: str | None = None) -> Model:
    """Load a trained model.

    Parameters
    ----------
    model : str, optional
        A variant trained in this checkout, as ``mlp``; the id of an MLflow run, or its beginning;
        or a model that ``refashion register`` made, as ``models:/NAME@ALIAS``. By default the
        variant with the best test accuracy.

    Raises
    ------
    UserError
        If there is no such model, somebody else made it, or its files are missing or altered.

    Examples
    --------
    >>> model = refashion.load("mlp")
    >>> model.predict(PIL.Image.open("examples/boot.png"))
    array(['Ankle boot'], dtype='<U11')
    """
    return predict.load(Workspace.here(), model)


def results(run: str) -> Results:
    """Read the history, the metrics and the settings of a run.

    Parameters
    ----------
    run : str
        A variant of this checkout, as ``mlp``; a study's run, as ``weight_decay/decay_3``; or the
        id of an MLflow run, or its beginning.

    Raises
    ------
    UserError
        If there is no such run, there are several, or its files are missing or altered.

    Examples
    --------
    >>> refashion.results("mlp").history.plot(y=["train_loss", "validation_loss"])
    """
    if not isinstance(run, str):
        raise UserError(f"{run!r}: name a run by text, as in results('mlp')")
    workspace = Workspace.here()
    for found in listing.everything(workspace):
        if found.title == run:
            found.refuse_altered()
            return _results(found)
    with TemporaryDirectory() as folder, store.connect(workspace, reading=True) as connected:
        runs = published.find(run, connected)
        if len(runs) != 1:
            raise UserError(
                f"{run}: no run of {workspace.root}, and {len(runs)} runs in MLflow; give "
                "the name or the id of one (`make ui` lists them)"
            )
        return _results(published.read(runs[0], Path(folder), connected).run)


def _results(run: Run) -> Results:
    """Read a run's files."""
    columns = {name: pd.Series(column) for name, column in run.history.items()}
    history = pd.DataFrame(columns or {"epoch": []})  # none of a run that diverged in its first
    return Results(
        name=run.name,
        history=history.astype({"epoch": int}).set_index("epoch"),
        metrics=pd.Series(run.metrics, name=run.name),
        settings=run.settings,
    )
