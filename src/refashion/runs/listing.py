"""Which runs a checkout has."""

from collections.abc import Iterable
from pathlib import Path

from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs.run import Run


def variants(workspace: Workspace) -> list[Run]:
    """The run of every variant of the checkout's own ``params.yaml``, whatever else that holds."""
    settings = params.read(workspace.params_file)
    return [variant(workspace, name) for name in settings.get("variants") or ()]


def variant(workspace: Workspace, name: str) -> Run:
    """The run of one variant."""
    return _run(workspace, name, workspace.variant_folders(name))


def of_study(workspace: Workspace, study: str) -> list[Run]:
    """Every run of a study, those that sum up others first; none, if it was not made here."""
    records = workspace.study_folder(study).glob("*/record.json")
    names = sorted(record.parent.name for record in records)
    runs = [
        _run(workspace, f"{study}/{name}", [workspace.study_folder(study) / name]) for name in names
    ]
    return sorted(runs, key=lambda run: (run.record.parent is not None, run.name))


def everything(workspace: Workspace) -> list[Run]:
    """Runs of all variants and of all studies."""
    studies = sorted(folder.name for folder in workspace.studies.glob("*/"))
    return [*variants(workspace), *(run for name in studies for run in of_study(workspace, name))]


def of_pipeline(workspace: Workspace) -> list[Run]:
    """Runs that ``dvc repro`` makes: not those of a study with a pipeline of its own."""
    runs = everything(workspace)
    return [run for run in runs if not (run.has("record.json") and ":" in run.record.stage)]


def find(workspace: Workspace, name: str) -> Run:
    """The run of a name.

    Raises
    ------
    UserError
        If the checkout has none of this name.
    """
    runs = {run.title: run for run in everything(workspace)}
    if name not in runs:
        place = f"in commit {workspace.commit[:12]}" if workspace.commit else "here"
        raise UserError(f"{name}: no run of that name {place}; there are {', '.join(runs)}")
    return runs[name]


def _run(workspace: Workspace, name: str, folders: Iterable[Path]) -> Run:
    log = workspace.logs / f"{name}.json"
    return Run(folders=tuple(folders), log_file=log, title=name, commit=workspace.commit)
