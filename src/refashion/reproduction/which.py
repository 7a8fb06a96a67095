"""Which run a file or a digest comes from, and how to make it again."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import worktree
from refashion.runs import listing
from refashion.tracking import published
from refashion.tracking.publish import experiments
from refashion.tracking.store import Store

RECORD = "record.json"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a file or a digest comes from."""

    name: str
    """Of the run; the path of a file that sums up several."""
    run_ids: list[str]
    """MLflow's."""
    experiments: list[str]
    """DVC's."""
    commits: list[str]
    """Those that brought the result, the newest first; if none did, those of the run's code."""
    command: str
    """Makes it again."""

    def lines(self) -> Iterator[str]:
        """For people."""
        yield self.name
        yield from (f"  MLflow run {run_id}" for run_id in self.run_ids)
        yield from (f"  DVC experiment {name}" for name in self.experiments)
        yield from (f"  commit {commit}" for commit in self.commits)
        yield f"  again: {self.command}"


@dataclass(frozen=True)
class _Record:
    """The content of a ``record.json``, of whatever layout."""

    content: bytes

    @property
    def fields(self) -> dict[str, Any]:
        return json.loads(self.content)

    @property
    def outputs(self) -> dict[str, str]:
        return self.fields.get("outputs", {})

    @property
    def run(self) -> tuple[str, str]:
        """Name and weights: records that agree in both are of one run, in several layouts."""
        fields = self.fields
        return fields.get("name") or fields["variant"], self.outputs.get("weights", "")

    def has(self, digest: str) -> bool:
        """Whether the digest of an output begins so."""
        return any(output.startswith(digest) for output in self.outputs.values())


def which(text: str, workspace: Workspace, store: Store | None) -> list[Source]:
    """Find what a file or a digest comes from, in the workspace, in git and in MLflow.

    Parameters
    ----------
    text : str
        Path of a file that a run left, under whatever name: weights, a table, metrics, a record;
        or the beginning of the SHA-256 of weights or of such a file.
    workspace : Workspace
        Whose results are searched, and whose repository with DVC's experiments.
    store : Store or None
        Where published runs are searched, if anywhere.

    Returns
    -------
    list of Source
        Several for what several runs share, those of the workspace first.

    Raises
    ------
    UserError
        If the text is neither a file nor a digest, or the workspace is not in git.
    """
    file, root = Path(text), workspace.root
    records: list[_Record] = []
    summaries: dict[str, list[str]] = {}
    digests = [text]
    if file.is_file():
        digests = [files.sha256(file), *_of_weights(file)]
        for commit, path in _commits_with(file.read_bytes(), root):
            if record := _beside(commit, path, root):
                records.append(record)
            else:
                summaries.setdefault(path, []).append(commit)
    elif not re.fullmatch(f"[0-9a-f]{{{published.SHORTEST},64}}", text):
        raise UserError(
            f"{text}: no such file, and no digest ({published.SHORTEST} to 64 digits of 0-9 and "
            "a-f); name a file that a run left, or its SHA-256"
        )
    for digest in digests:
        records = [*_here(digest, workspace), *records, *_recorded(digest, root)]
    if store:
        runs = published.holding(digests, store)
        records += [_Record(published.artifact(run, RECORD, store)) for run in runs]
    by_run: dict[tuple[str, str], list[_Record]] = {}
    for record in dict.fromkeys(records):
        by_run.setdefault(record.run, []).append(record)
    sources = [_source(of_run, root, store) for of_run in by_run.values()]
    for path, commits in summaries.items():
        again = f"git checkout {commits[0]} && dvc repro"
        source = Source(name=path, run_ids=[], experiments=[], commits=commits, command=again)
        sources.append(source)
    return sources


def searched(workspace: Workspace, store: Store | None) -> str:
    """Where `which` looks, for people."""
    commits = worktree.git("rev-list", "--all", "--count", folder=workspace.root).decode().strip()
    server = f"MLflow at {store.uri}" if store else "no MLflow database, for there is none"
    return f"{workspace.root}, {commits} commits (DVC's experiments too), {server}"


def _of_weights(file: Path) -> Iterator[str]:
    """The digest of the weights in a file, if it is one of safetensors."""
    if file.read_bytes()[8:9] != b"{":  # after the length of its header
        return
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from refashion.training import digest

    try:
        yield digest.weights(load_file(file))
    except (SafetensorError, ValueError):
        return


def _here(digest: str, workspace: Workspace) -> Iterator[_Record]:
    """Records of the workspace's runs with such an output, or another file of this SHA-256."""
    for run in listing.everything(workspace):
        if run.has(RECORD):
            record = _Record(run.file(RECORD).read_bytes())
            digests = (files.sha256(file) for file in run.files)
            if record.has(digest) or any(found.startswith(digest) for found in digests):
                yield record


def _introduced(*criterion: str, root: Path) -> Iterator[tuple[str, str, bytes]]:
    """Commits, the newest first, with a path and the content of every file that git's log finds."""
    form = ("--format=commit %H", "--name-only", "--no-renames", "--diff-filter=AM")
    commit = ""
    for line in worktree.git("log", "--all", *form, *criterion, folder=root).decode().splitlines():
        if line.startswith("commit "):
            commit = line.removeprefix("commit ")
        elif line:
            yield commit, line, worktree.git("show", f"{commit}:{line}", folder=root)


def _commits_with(content: bytes, root: Path) -> Iterator[tuple[str, str]]:
    """Commits that brought a result of this content, the newest first, and its path."""
    blob = worktree.git("hash-object", "--stdin", folder=root, feed=content).decode().strip()
    criterion = (f"--find-object={blob}", "--", "models", "reports")
    for commit, path, committed in _introduced(*criterion, root=root):
        if committed == content:  # and not replaced it
            yield commit, path


def _recorded(digest: str, root: Path) -> Iterator[_Record]:
    """Records that were ever committed with such an output, the newest first."""
    for _, _, content in _introduced(f"-S{digest}", "--", f"*{RECORD}", root=root):
        record = _Record(content)
        if record.has(digest):
            yield record


def _beside(commit: str, path: str, root: Path) -> _Record | None:
    """The record in the folder of a committed file, if it has one."""
    record = f"{commit}:{PurePosixPath(path).with_name(RECORD)}"
    if not worktree.git("ls-tree", "--full-tree", *record.split(":"), folder=root):
        return None
    found = _Record(worktree.git("show", record, folder=root))
    return found if found.outputs else None  # once a study had one record for all its runs


def _source(records: list[_Record], root: Path, store: Store | None) -> Source:
    """All that is known of the run of some records."""
    commits = [commit for record in records for commit, _ in _commits_with(record.content, root)]
    digests = [sha256(record.content).hexdigest() for record in records]
    runs = published.holding(digests, store) if store else []
    names = {name for run in runs for name in experiments(run)}
    names |= {n for n, (commit, _) in worktree.experiments(root).items() if commit in commits}
    again = f"dvc repro {records[0].fields.get('stage', '')}".strip()
    if runs:
        again = f"refashion reproduce {runs[0].info.run_id}"
    elif commits:
        again = f"git checkout {commits[0]} && {again}"
    return Source(
        name=records[0].run[0],
        run_ids=[run.info.run_id for run in runs],
        experiments=sorted(names),
        commits=commits or sorted({c for run in runs if (c := published.commit(run))}),
        command=again,
    )
