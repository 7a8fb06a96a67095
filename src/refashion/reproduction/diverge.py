"""Where two runs part, and what differs in all that could have parted them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.reproduction import reproduce, verdict, worktree
from refashion.reproduction.worktree import State
from refashion.tracking.contents import HARDWARE
from refashion.tracking.results import Results
from refashion.tracking.runs import Published, SideBySide
from refashion.tracking.store import Store

CODE = ("src", "stages", "dvc.yaml")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two."""

    results: Results
    state: State | None
    """Where its code is; None for a record on its own."""


def find(text: str, folder: Path, store: Store | None, variant: str | None) -> Side:
    """Find the one result that a text means: a run, an experiment, a revision or a record.

    Raises
    ------
    UserError
        If it means none, or several.
    """
    if Path(text).is_file():
        record = Path(text).resolve()
        if record.name != paths.record("any").name:
            raise UserError(f"{text}: is no record; name a record.json, with its history beside it")
        side = SideBySide(root=record.parent, variant="")
        if "variant" not in side.record:
            raise UserError(f"{text}: is the record of a study; name a run of one of its arms")
        return Side(
            results=SideBySide(root=record.parent, variant=side.record["variant"]), state=None
        )
    claims = reproduce.claims(text, folder, store, variant)
    found = [Side(results=one, state=claim.state) for claim in claims for one in claim.results]
    if len(found) > 1:
        names = ", ".join(side.results.variant for side in found)
        raise UserError(f"{text}: has several variants ({names}); choose one with --variant")
    return found[0]


def diverge(a: Side, b: Side) -> dict[str, Any]:
    """Compare two results and what they came from.

    Returns
    -------
    dict
        ``epoch``: the first in which the histories part, or None; ``same_outputs``; and pairs of
        a's and b's value by name under ``params``, ``data``, ``outputs`` and ``environment``;
        ``code``: the files that differ between their commits, None where one is unknown.
    """
    records = a.results.record, b.results.record
    return {
        "epoch": verdict.first_epoch(a.results, b.results),
        "same_outputs": records[0]["outputs"] == records[1]["outputs"],
        "params": _pairs(*({**r["params"], "contract": r["contract"]} for r in records)),
        "data": _pairs(*(r["inputs"] for r in records)),
        "outputs": _pairs(*(r["outputs"] for r in records)),
        "environment": _pairs(*(_environment(side.results) for side in (a, b))),
        "code": _code(a.state, b.state),
    }


def _pairs(a: dict[str, Any], b: dict[str, Any]) -> dict[str, list[Any]]:
    return {k: [a.get(k), b.get(k)] for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def _environment(results: Results) -> dict[str, Any]:
    log = results.log or {}
    found = {name: log[name] for name in HARDWARE if log.get(name) is not None}
    if isinstance(results, Published):
        text = results.artifact("environment.txt").read_text(encoding="utf-8")
        found |= reproduce.requirements(text)
    return found


def _code(a: State | None, b: State | None) -> list[str] | None:
    """Files of code that differ, with those of one side's uncommitted changes."""
    if a is None or b is None or any(worktree.resolve(s.commit) is None for s in (a, b)):
        return None
    listed = worktree.git("diff", "--name-only", a.commit, b.commit, "--", *CODE).decode()
    changed = set(listed.split())
    if a.diff != b.diff:
        for state in (a, b):
            changed |= {name for name in _touched(state.diff) if name.startswith(CODE)}
    return sorted(changed)


def _touched(diff: bytes) -> set[str]:
    marks = [line for line in diff.splitlines() if line.startswith(b"diff --git a/")]
    return {line.decode(errors="replace").rpartition(" b/")[2] for line in marks}
