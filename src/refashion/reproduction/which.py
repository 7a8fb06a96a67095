"""Which run a file or a digest comes from, and how to make it again."""

import json
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
from refashion.reproduction import worktree
from refashion.runs import listing
from refashion.runs.record import LAYOUT, Record, parse
from refashion.tracking import published
from refashion.tracking.publish import experiments
from refashion.tracking.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun

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
    root, file = workspace.root, Path(text)
    digests, blob = [text], ""
    if file.is_file():
        digests = [files.sha256(file), *_of_weights(file)]
        blob = worktree.git("hash-object", str(file.resolve()), folder=root).decode().strip()
    elif not re.fullmatch(f"[0-9a-f]{{{published.SHORTEST},64}}", text):
        raise UserError(
            f"{text}: no such file, and no digest ({published.SHORTEST} to 64 digits of 0-9 and "
            "a-f); name a file that a run left, or its SHA-256"
        )
    held: dict[bytes, list[str]] = {}  # records, with digests of files of their runs
    for run in listing.everything(workspace):
        if run.has(RECORD):
            held[run.file(RECORD).read_bytes()] = [files.sha256(file) for file in run.files]
    commits: dict[bytes, list[str]] = defaultdict(list)  # that brought a record
    summaries: dict[str, list[str]] = defaultdict(list)  # commits that brought the file by a path
    for commit, path, is_file, content in _brought(blob, root):
        if path.endswith(RECORD):
            commits[content].append(commit)
        if is_file and not _parse(content):
            summaries[path].append(commit)
        held.setdefault(content, []).extend(digests if is_file else ())
    runs: dict[bytes, list[MlflowRun]] = defaultdict(list)
    if store:
        for mlflow_run in published.holding(digests, store):
            content = published.artifact(mlflow_run, RECORD, store)
            runs[content].append(mlflow_run)
            held.setdefault(content, []).extend(digests)

    by_run: dict[tuple[str, str], dict[bytes, Record]] = defaultdict(dict)
    for content, others in held.items():
        if record := _parse(content):
            known = [*record.outputs.values(), *others]
            if any(whole.startswith(digest) for whole in known for digest in digests):
                by_run[record.name, record.outputs["weights"]][content] = record
    return [
        *(
            _source(
                next(iter(of_run.values())),
                [commit for content in of_run for commit in commits[content]],
                [mlflow_run for content in of_run for mlflow_run in runs[content]],
                root,
            )
            for of_run in by_run.values()
        ),
        *(
            Source(
                name=path,
                run_ids=[],
                experiments=[],
                commits=those,
                command=f"git checkout {those[0]} && dvc repro",
            )
            for path, those in summaries.items()
        ),
    ]


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


def _parse(content: bytes) -> Record | None:
    """Read a record; None, if it is none that this code reads."""
    try:
        fields = json.loads(content)
        return parse(fields) if fields["layout"] == LAYOUT else None
    except (ValueError, KeyError):
        return None


def _brought(blob: str, root: Path) -> Iterator[tuple[str, str, bool, bytes]]:
    """Records that commits brought, and the file of a name in git's store, the newest first.

    For each the commit, its path, whether it is that file, and the record in its folder, if any.
    """
    form = ("--format=commit %H", "--raw", "--no-abbrev", "--no-renames", "--diff-filter=AM")
    log = worktree.git("log", "--all", *form, "--", "models", "reports", folder=root).decode()
    rows, commit = [], ""
    for line in filter(None, log.splitlines()):
        about, _, path = line.partition("\t")  # :100644 100644 BEFORE AFTER M<tab>PATH
        if not path:
            commit = line.removeprefix("commit ")
        elif (is_file := about.split()[3] == blob) or path.endswith(RECORD):
            rows.append((commit, path, is_file))
    names = [f"{commit}:{PurePosixPath(path).with_name(RECORD)}\n" for commit, path, _ in rows]
    answer = worktree.git("cat-file", "--batch", folder=root, feed="".join(names).encode())
    stream = BytesIO(answer)
    for row in rows:
        size = stream.readline().split()[-1]  # of "NAME TYPE SIZE", or of "NAME missing"
        yield *row, stream.read(int(size) + 1)[:-1] if size.isdigit() else b""


def _source(record: Record, commits: list[str], runs: "list[MlflowRun]", root: Path) -> Source:
    """All that is known of a run."""
    names = {name for run in runs for name in experiments(run)}
    names |= {n for n, (commit, _) in worktree.experiments(root).items() if commit in commits}
    again = f"dvc repro {record.stage}"
    if runs:
        again = f"refashion reproduce {runs[0].info.run_id}"
    elif commits:
        again = f"git checkout {commits[0]} && {again}"
    return Source(
        name=record.name,
        run_ids=[run.info.run_id for run in runs],
        experiments=sorted(names),
        commits=commits or sorted({c for run in runs if (c := published.commit(run))}),
        command=again,
    )
