"""The runs of a checkout."""

from pathlib import Path
from typing import Any

from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.params.mistakes import show
from refashion.base.workspace import Workspace
from refashion.runs.record import differing
from refashion.runs.run import Run


def variants(workspace: Workspace) -> list[Run]:
    """The run of every variant in the checkout's ``params.yaml``, whatever else that holds."""
    names = params.read(workspace.params_file).get("variants") or {}
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names):
        file = workspace.params_file.name
        raise UserError(f"{file}: variants is {show(names)}; it must be a mapping from names")
    return [variant(workspace, name) for name in names]


def variant(workspace: Workspace, name: str) -> Run:
    """The run of one variant."""
    return _run(workspace, name, *workspace.variant_folders(name))


def of_study(workspace: Workspace, study: str) -> list[Run]:
    """All runs of a study that were made here, those that sum up others first."""
    records = sorted(workspace.study_folder(study).glob("*/record.json"))
    runs = [_run(workspace, f"{study}/{file.parent.name}", file.parent) for file in records]
    return sorted(runs, key=lambda run: (run.record.parent is not None, run.name))


def swept(workspace: Workspace, study: str) -> dict[str, list[str]]:
    """Names of the settings that differ among the runs of a study, by the run that sums them up."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for run in of_study(workspace, study):
        if run.record.parent:
            parts.setdefault(run.record.parent, []).append(run.settings)
    return {parent: differing(settings) for parent, settings in parts.items()}


def studies(workspace: Workspace) -> list[str]:
    """Names of the studies, and sweeps, that were made here."""
    return sorted(folder.name for folder in workspace.studies.glob("*/"))


def everything(workspace: Workspace) -> list[Run]:
    """The runs of all variants and of all studies."""
    of_studies = (run for name in studies(workspace) for run in of_study(workspace, name))
    return [*variants(workspace), *of_studies]


def of_pipeline(workspace: Workspace) -> list[Run]:
    """The runs that ``dvc repro`` makes: not those of a study with its own pipeline."""
    runs = everything(workspace)
    return [run for run in runs if not (run.has("record.json") and ":" in run.record.stage)]


def find(workspace: Workspace, name: str) -> Run:
    """The run of a name; `UserError` if the checkout has none."""
    runs = {run.title: run for run in everything(workspace)}
    if name not in runs:
        place = f"in commit {workspace.commit[:12]}" if workspace.commit else "here"
        raise UserError(f"{name}: no run of that name {place}; there are {', '.join(runs)}")
    return runs[name]


def _run(workspace: Workspace, name: str, *folders: Path) -> Run:
    log_file = workspace.log_file(name)
    return Run(folders=folders, log_file=log_file, title=name, commit=workspace.commit)
