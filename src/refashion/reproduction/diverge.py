"""Where two runs diverge, and everything that could be the reason."""

import os
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
    """Files of code that differ between the commits, or whose uncommitted changes do."""
    if a is None or b is None or None in (revisions.resolve(s.commit, root) for s in (a, b)):
        return None
    prefix = os.fsdecode(revisions.git("rev-parse", "--show-prefix", folder=root).rstrip(b"\n"))
    options = ("--name-only", "--no-renames", "--no-relative", "-z")
    told = revisions.git("diff", *options, a.commit, b.commit, folder=root)
    changed = {*os.fsdecode(told).split("\0")[:-1]}
    changed.update(pairs(*(_uncommitted(state.diff, root) for state in (a, b))))
    code = [f for f in changed if f.startswith(prefix) and not f.endswith("dvc.lock")]
    return sorted(f for f in code if f.removeprefix(prefix).partition("/")[0] in CODE)


def _uncommitted(diff: bytes, root: Path) -> dict[str, bytes]:
    """Part of a diff by the name of the file that it changes, from the top of the repository."""
    parts = re.split(b"^(?=diff --git )", diff, flags=re.MULTILINE)[1:]
    if not parts:
        return {}
    top = os.fsdecode(revisions.git("rev-parse", "--show-toplevel", folder=root).rstrip(b"\n"))
    command = ("apply", "--numstat", "-z", "--whitespace=nowarn", "-")  # which changes nothing
    told = revisions.git(*command, folder=Path(top), feed=b"".join(parts))
    names = [os.fsdecode(row.split(b"\t", 2)[2]) for row in told.split(b"\0")[:-1]]
    # How long git's hashes are depends on the repository.
    changes = [re.sub(b"^index .*\n", b"", part, count=1, flags=re.MULTILINE) for part in parts]
    return dict(zip(names, changes, strict=True))
