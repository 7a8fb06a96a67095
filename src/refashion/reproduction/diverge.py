"""Where two runs diverge, and everything that could be the reason."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import reproduce, verdict, worktree
from refashion.reproduction.worktree import State
from refashion.runs.run import Run, in_folder
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
    """Find the one run that a text means.

    Parameters
    ----------
    text : str
        As `reproduce.claims` takes it; or the path of a ``record.json``.
    folder, store, workspace, name
        As there.

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
    claims = reproduce.claims(text, folder, store, workspace, name)
    origins = [Origin(run=run, state=claim.state) for claim in claims for _, run in claim.runs]
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
        of a's and b's value by name under ``params``, ``data``, ``outputs`` and ``environment``,
        none of the last where one is unknown; ``code``: the files that differ between their
        commits, None where one is unknown.
    """
    records = a.run.record, b.run.record
    environments = [reproduce.environment(origin.run) for origin in (a, b)]
    settings = ({**o.run.settings, "contract": o.run.record.contract} for o in (a, b))
    return {
        "epoch": verdict.first_epoch(a.run, b.run),
        "same_outputs": records[0].outputs == records[1].outputs,
        "params": _pairs(*settings),
        "data": _pairs(*(record.inputs for record in records)),
        "outputs": _pairs(*(record.outputs for record in records)),
        "environment": _pairs(*environments) if all(environments) else {},
        "code": _code(a.state, b.state, workspace.root),
    }


def lines(difference: Mapping[str, Any]) -> Iterator[str]:
    """What `diverge` returned, for people."""
    if difference["epoch"]:
        yield f"diverged in epoch {difference['epoch']}"
    else:
        yield f"same history{'' if difference['same_outputs'] else ', other weights'}"
    for part in ("params", "data", "outputs", "environment"):
        for name, (a, b) in difference[part].items():
            yield f"  {part} {name}: {a} | {b}"
    code = difference["code"]
    yield f"  code: {'unknown' if code is None else ', '.join(code) or 'the same'}"


def _pairs(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {k: [a.get(k), b.get(k)] for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def _code(a: State | None, b: State | None, root: Path) -> list[str] | None:
    """Files of code that differ, with those of uncommitted changes that only one has."""
    if a is None or b is None or None in (worktree.resolve(s.commit, root) for s in (a, b)):
        return None
    names = ("diff", "--name-only", a.commit, b.commit, "--", *CODE)
    changed = set(worktree.git(*names, folder=root).decode().split())
    if a.diff != b.diff:
        for state in (a, b):
            changed |= {name for name in _changed(state.diff) if name.startswith(CODE)}
    return sorted(changed)


def _changed(diff: bytes) -> set[str]:
    marks = [line for line in diff.splitlines() if line.startswith(b"diff --git a/")]
    return {line.decode(errors="replace").rpartition(" b/")[2] for line in marks}
