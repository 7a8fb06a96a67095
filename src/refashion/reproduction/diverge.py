"""Where two runs diverge, and everything that could be the reason."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import reproduce, revisions, verdict
from refashion.reproduction.verdict import pairs
from refashion.reproduction.worktree import State
from refashion.runs.run import Run, in_folder
from refashion.tracking.contents import HARDWARE
from refashion.tracking.store import Store

CODE = ("src", "stages", "dvc.yaml")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A run, and where its code is."""

    run: Run

    state: State | None
    """None for a record on its own."""


def find(
    text: str, folder: Path, store: Store | None, workspace: Workspace, name: str | None
) -> Origin:
    """Find the one run that a text means: as `reproduce.find`, or the path of a ``record.json``.

    Raises
    ------
    UserError
        If it means none, or several.
    """
    if Path(text).is_file():
        file = Path(text).resolve()
        if file.name != "record.json":
            raise UserError(f"{text}: is no record; name a record.json, with its history beside it")
        return Origin(run=in_folder(file.parent, text), state=None)
    by_state = reproduce.find(text, folder, store, workspace, name)
    origins = [Origin(run=run, state=state) for state, runs in by_state.items() for _, run in runs]
    if len(origins) > 1:
        names = ", ".join(origin.run.name for origin in origins)
        raise UserError(f"{text}: has several runs ({names}); choose one with --name")
    return origins[0]


def diverge(a: Origin, b: Origin, workspace: Workspace) -> dict[str, Any]:
    """Compare two runs and what they came from.

    Returns
    -------
    dict
        ``epoch``: the first in which the histories diverge, or None; ``same_outputs``; and pairs
        of a's and b's value by name under ``params``, ``data``, ``outputs``, ``hardware`` and
        ``packages``; ``code``: the files that differ between their commits. The last three are
        None where one side's is unknown.
    """
    runs = a.run, b.run
    environments = [reproduce.environment(run) for run in runs]
    hardware = [{k: e[k] for k in HARDWARE if k in e} for e in environments]
    packages = [{k: e[k] for k in e if k not in HARDWARE} for e in environments]
    outputs = pairs(*(run.record.outputs for run in runs))
    return {
        "epoch": verdict.first_epoch(*runs),
        "same_outputs": not outputs,
        "params": pairs(*({**r.settings, "contract": r.record.contract} for r in runs)),
        "data": pairs(*(run.record.inputs for run in runs)),
        "outputs": outputs,
        # Where nothing is known of one side, it would differ in everything.
        "hardware": pairs(*hardware) if all(hardware) else None,
        "packages": pairs(*packages) if all(packages) else None,
        "code": _code(a.state, b.state, workspace.root),
    }


def lines(difference: Mapping[str, Any]) -> Iterator[str]:
    """What `diverge` returned, for people."""
    if difference["epoch"]:
        yield f"diverged in epoch {difference['epoch']}"
    else:
        yield f"same history{'' if difference['same_outputs'] else ', other weights'}"
    for part in ("params", "data", "outputs", "hardware", "packages"):
        if difference[part] is None:
            yield f"  {part}: unknown"
        for name, (a, b) in (difference[part] or {}).items():
            yield f"  {part} {name}: {a} | {b}"
    code = difference["code"]
    yield f"  code: {'unknown' if code is None else ', '.join(code) or 'the same'}"


def _code(a: State | None, b: State | None, root: Path) -> list[str] | None:
    """Files of code that differ, with those of uncommitted changes that only one has."""
    if a is None or b is None or None in (revisions.resolve(s.commit, root) for s in (a, b)):
        return None
    arguments = ("diff", "--name-only", a.commit, b.commit, "--", *CODE)
    changed = set(revisions.git(*arguments, folder=root).decode().split())
    if a.diff != b.diff:
        diffs = (a.diff + b.diff).decode(errors="replace")
        names = re.findall("^diff --git a/.* b/(.*)$", diffs, re.MULTILINE)
        changed |= {name for name in names if name.startswith(CODE)}
    return sorted(changed)
