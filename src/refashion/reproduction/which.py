"""Which run a file or a digest comes from, and how to make it again."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import revisions
from refashion.runs import listing
from refashion.runs.record import Record, read
from refashion.runs.run import digest_of_weights
from refashion.tracking import published
from refashion.tracking.integrity import RESULT
from refashion.tracking.marks import experiments
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

RECORD = "record.json"

Key = tuple[str, str]
"""Name and result of a run; the path of a file that sums up several, and no result."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a file or a digest comes from."""

    name: str  # of the run; the path of a file that sums up several
    run_ids: list[str]  # MLflow's
    experiments: list[str]  # DVC's
    commits: list[str]  # that brought the result, the newest first; else those of the run's code
    command: str  # makes it again

    def lines(self) -> Iterator[str]:
        """For people."""
        yield self.name
        yield from (f"  MLflow run {run_id}" for run_id in self.run_ids)
        yield from (f"  DVC experiment {name}" for name in self.experiments)
        yield from (f"  commit {commit}" for commit in self.commits)
        yield f"  again: {self.command}"


def which(text: str, workspace: Workspace, store: Store | None) -> list[Source]:
    """Find what a file or a digest comes from: in the workspace, in git and, if given, in MLflow.

    The text is the path of a file that a run left, under whatever name: weights, a table, metrics,
    a record; or the beginning of the SHA-256 of weights or of such a file. What several runs share
    has several sources, those of the workspace first.

    Raises
    ------
    UserError
        If the text is neither a file nor a digest, or the workspace is not in git.
    """
    root, file = workspace.root, Path(text)
    digests, blob = [text], ""
    if file.is_file():
        digests = [*filter(None, (files.sha256(file), digest_of_weights(file)))]
        blob = revisions.git("hash-object", str(file.resolve()), folder=root).decode().strip()
    elif file.exists():
        raise UserError(f"{text}: is no file; name a file that a run left")
    elif not re.fullmatch(f"[0-9a-f]{{{published.SHORTEST},64}}", text):
        raise UserError(
            f"{text}: no such file, and no digest ({published.SHORTEST} to 64 digits of 0-9 and "
            "a-f); name a file that a run left, or its SHA-256"
        )
    found: dict[Key, str] = {}  # to the stage that makes it
    commits: dict[Key, list[str]] = defaultdict(list)
    runs: dict[Key, list[MlflowRun]] = defaultdict(list)

    for run in listing.everything(workspace):
        record = _parse(run.file(RECORD).read_bytes()) if run.has(RECORD) else None
        if record and published.any_begins(
            [*record.outputs.values(), *map(files.sha256, run.files)], digests
        ):
            found[record.name, record.result] = record.stage
    for commit, path, is_file, record in _brought(blob, root):
        key = (record.name, record.result) if record else (path, "")
        if is_file or (record and published.any_begins(record.outputs.values(), digests)):
            found.setdefault(key, record.stage if record else "")
        if path.endswith(RECORD) if record else is_file:
            commits[key].append(commit)
    if store:
        for mlflow_run in published.holding([*digests, *(r for _, r in found if r)], store):
            tags = mlflow_run.data.tags
            runs[tags["name"], tags[RESULT]].append(mlflow_run)
    in_git = revisions.experiments(root).items()
    sources = []
    for key in dict.fromkeys([*found, *runs]):
        again = f"dvc repro {found.get(key, '')}".strip()
        if runs[key]:
            again = f"refashion reproduce {runs[key][0].info.run_id}"
        elif commits[key]:
            again = f"git checkout {commits[key][0]} && {again}"
        code = {c for run in runs[key] if (c := run.data.tags.get("commit"))}
        names = {name for name, (commit, _) in in_git if commit in commits[key]}
        sources.append(
            Source(
                name=key[0],
                run_ids=[run.info.run_id for run in runs[key]],
                experiments=sorted(names.union(*map(experiments, runs[key]))),
                commits=commits[key] or sorted(code),
                command=again,
            )
        )
    return sources


def searched(workspace: Workspace, store: Store | None) -> str:
    """Where `which` looks, for people."""
    commits = revisions.git("rev-list", "--all", "--count", folder=workspace.root).decode().strip()
    server = f"MLflow at {store.uri}" if store else "no MLflow database, for there is none"
    return f"{workspace.root}, {commits} commits (DVC's experiments too), {server}"


def _parse(content: bytes) -> Record | None:
    """Read a record; None, if it is none that this code reads."""
    try:
        return read(content)
    except ValueError:
        return None


def _brought(blob: str, root: Path) -> Iterator[tuple[str, str, bool, Record | None]]:
    """Records that commits brought, and the file of a name in git's store, the newest first.

    For each the commit, its path, whether it is that file, and the record in its folder, if any.
    """
    form = ("--format=%H", "--raw", "--no-abbrev", "--no-renames", "--diff-filter=AM")
    own = ("--root", "--no-show-signature", "--no-relative")  # whatever the user's settings
    merges = ("-c", "--full-history")  # what they brought themselves, and what they left out
    options = (*form, *own, *merges)
    log = revisions.git("log", "--all", *options, "--", "models", "reports", folder=root)
    rows, commit = [], ""
    for line in filter(None, os.fsdecode(log).split("\n")):
        about, _, path = line.partition("\t")  # :100644 100644 BEFORE AFTER M<tab>PATH, or more
        if not path:
            commit = line
        elif (is_file := about.split()[-2] == blob) or path.endswith(RECORD):
            rows.append((commit, path, is_file))
    names = [f"{commit}:{PurePosixPath(path).with_name(RECORD)}\n" for commit, path, _ in rows]
    feed = os.fsencode("".join(names))
    stream = BytesIO(revisions.git("cat-file", "--batch", folder=root, feed=feed))
    for row in rows:
        size = stream.readline().split()[-1]  # of "NAME TYPE SIZE", or of "NAME missing"
        yield *row, _parse(stream.read(int(size) + 1)) if size.isdigit() else None
