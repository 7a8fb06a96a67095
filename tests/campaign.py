"""Trials of injected faults: a workspace that is put back for each, and what became of it."""

import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import yaml

import injected
from refashion.reproduction import revisions
from refashion.runs.run import LOG
from refashion.tracking.integrity import COMPLETE, PUBLISHED, RESULT
from small_pipeline import Workspace

VOLATILE = {".git", ".dvc", "mlflow-artifacts", "logs", "__pycache__", "__init__.py"}
"""Names of what no run must leave the same."""

OUTCOMES = ("lost", "doubled", "half_written", "stuck", "stale", "untold", "mended")
"""What may be wrong after a trial: a result or ``dvc.lock`` is not as it should be, or a run not
published; published more than once; part of a result stood under its final name; running again
fails; a file, lock, worktree or process remains; the failure was not told in one line. ``mended``:
`refashion mend` was needed, which is not wrong."""

Published = dict[str, list[tuple[str, str, tuple[str, ...]]]]
"""By run: the state, the result and the artifacts of each publication that is not deleted.

The log of the training is none of them: it is that of the last one here, an experiment's perhaps.
"""


@dataclass(frozen=True)
class State:
    """What a fault must not change."""

    outputs: dict[str, str]
    """SHA-256 of each file of the results, by path."""
    lock: bytes
    published: Published
    files: frozenset[str]


@dataclass
class Ground:
    """A workspace that is put back before each trial, in the same place.

    So nothing in it depends on the trial: neither paths in MLflow's database, nor DVC's caches.
    """

    workspace: Workspace
    pristine: Path
    expected: State

    @property
    def root(self) -> Path:
        """Folder of the workspace."""
        return self.workspace.root

    def put_back(self, *missing: str) -> None:
        """Bring back the state after a whole run, without some files and folders."""
        restore(self.pristine, self.root)
        for name in missing:
            path = self.root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def now(self) -> "Ground":
        """This ground, where the workspace's state is the expected one."""
        return replace(self, expected=state_of(self.root))

    def half_written(self) -> list[str]:
        """Results that are neither missing nor as they should be."""
        return sorted(
            name
            for name, digest in results(self.root).items()
            if self.expected.outputs.get(name) != digest
        )

    def check(self, *again: injected.Outcome, published: Collection[str] = ()) -> list[str]:
        """Names of `OUTCOMES` that are so after it ran again; by default, all is published."""
        state, expected = state_of(self.root), self.expected
        wrong = ["stuck"] * any(outcome.code != 0 for outcome in again)
        wrong += ["lost"] * (state.outputs != expected.outputs or state.lock != expected.lock)
        for name in published or expected.published:
            found, sound = Counter(state.published.get(name, [])), Counter(expected.published[name])
            complete = Counter(row for row in found.elements() if row[0] == COMPLETE)
            wrong += ["lost"] * bool(sound - complete) + ["doubled"] * bool(complete - sound)
            wrong += ["stale"] * (found != complete)
        worktrees = revisions.git("worktree", "list", folder=self.root).splitlines()
        wrong += ["stale"] * (bool(state.files ^ expected.files) or len(worktrees) > 1)
        wrong += ["stale"] * bool(processes(self.root))
        return wrong


def change(ground: Ground, **settings: object) -> None:
    """Change top-level keys of params.yaml."""
    file = ground.root / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))


def other_rate(ground: Ground) -> None:
    """Change the settings, so that one variant is trained, measured and published anew."""
    variants = yaml.safe_load((ground.root / "params.yaml").read_text())["variants"]
    variants["mlp"]["lr"] = 0.05
    change(ground, variants=variants)


def restore(source: Path, target: Path) -> None:
    """Make a folder the copy of another one, times too, by touching nothing but what differs."""
    target.mkdir(exist_ok=True)
    wanted = {entry.name: entry for entry in os.scandir(source)}
    for entry in os.scandir(target):
        original = wanted.get(entry.name)
        if original is None or _kind(entry) != _kind(original):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
        elif not entry.is_dir(follow_symlinks=False):
            del wanted[entry.name]
    for name, entry in wanted.items():
        if entry.is_dir(follow_symlinks=False):
            restore(Path(entry.path), target / name)
        else:
            shutil.copy2(entry.path, target / name, follow_symlinks=False)


def _kind(entry: os.DirEntry[str]) -> tuple[int, ...]:
    """What tells a file from another one in its place."""
    status = entry.stat(follow_symlinks=False)
    if entry.is_dir(follow_symlinks=False):
        return (status.st_mode,)
    return status.st_mode, status.st_size, status.st_mtime_ns


def results(root: Path) -> dict[str, str]:
    """SHA-256 of each file of data, models and reports, by path; temporary ones aside."""
    folders = (root / name for name in ("data", "models", "reports"))
    paths = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(paths)
        if not path.name.startswith(".")
    }


def published(root: Path) -> Published:
    """What the workspace's database holds."""
    file = root / "mlflow.db"
    if not file.exists():
        return {}
    query = "SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'active'"
    runs: Published = {}
    with closing(sqlite3.connect(file)) as database:
        for run_id, uri in database.execute(query).fetchall():
            tags = dict(
                database.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,))
            )
            folder = Path(urlsplit(uri).path)
            files = (p for p in folder.rglob("*") if p.is_file() and p.name != LOG)
            names = (str(p.relative_to(folder)) for p in files)
            row = (tags.get(PUBLISHED, ""), tags.get(RESULT, ""), tuple(sorted(names)))
            runs.setdefault(tags.get("name", run_id), []).append(row)
    return runs


def state_of(root: Path) -> State:
    """The state of a workspace."""
    files = frozenset(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and VOLATILE.isdisjoint(path.relative_to(root).parts)
    )
    lock = (root / "dvc.lock").read_bytes() if (root / "dvc.lock").exists() else b""
    return State(outputs=results(root), lock=lock, published=published(root), files=files)


def processes(root: Path) -> list[int]:
    """Processes that work in a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            folder = (entry / "cwd").readlink()
        except OSError:  # it has ended, or is somebody else's
            continue
        if folder.is_relative_to(root):
            found.append(int(entry.name))
    return found


def until(condition: Callable[[], object]) -> None:
    """Wait for something, a minute at most."""
    patience = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < patience
        time.sleep(0.05)


@dataclass
class Campaign:
    """What became of all trials, a row for each fault."""

    file: Path | None
    """To which rows are added, as lines of JSON; None: nowhere."""
    trials: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    """Moment and outcome of each trial after which something is wrong."""

    def add(self, moment: object, outcomes: Collection[str]) -> None:
        """Count a trial."""
        self.trials += 1
        self.wrong += [(str(moment), outcome) for outcome in sorted(set(outcomes))]

    @contextmanager
    def of(self, fault: str) -> Iterator["Campaign"]:
        """Count trials of one fault, and refuse what is wrong with any of them at the end."""
        began = time.monotonic()
        row = Campaign(self.file)
        yield row
        counts = {name: sum(outcome == name for _, outcome in row.wrong) for name in OUTCOMES}
        if self.file:
            values = {"fault": fault, "trials": row.trials, **counts}
            values["seconds"] = round(time.monotonic() - began, 1)
            with self.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(values) + "\n")
        wrong = [item for item in row.wrong if item[1] != "mended"]
        assert not wrong, f"{fault}: {row.trials} trials, wrong after some: {wrong[:9]}"
