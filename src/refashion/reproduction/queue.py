"""DVC's queue of experiments: what workers that were killed have left in its files.

A message of the queue's lies in ``broker/in`` until a worker moves it to ``broker/processed``; it
names the experiment's task, whose state is in ``result`` once it has ended, and whose process is
told in a folder of ``run``. All of these are JSON, and written where they lie: while one is empty
or half there, no command of DVC's queue works.
"""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.machine import is_running
from refashion.reproduction.processes import is_used

JSON = (
    "celery/*.json",
    "celery/broker/*/*.*",
    "celery/result/*",
    "run/*/*.json",
    "run/*/*.run",
)
"""Patterns of files in the folder of the experiments."""

TAKEN = "celery/broker/processed/*.celery.msg"

ENDED = ("SUCCESS", "FAILURE", "REVOKED")
"""States that a task does not leave."""


class Task(NamedTuple):
    """An experiment that a worker has taken."""

    revision: str
    name: str


def runs_in_workspace(experiments: Path) -> bool:
    """Whether a `dvc exp run` is at work in the workspace itself."""
    return _runs(_object(experiments / "run" / "workspace" / "workspace.json"))


def writes_in_workspace(experiments: Path) -> bool:
    """Whether a DVC process runs a stage in the workspace, or changes outputs there."""
    writers = _object(experiments.with_name("rwlock")).get("write")
    return isinstance(writers, dict) and any(map(_runs, writers.values()))


def damaged(experiments: Path) -> Iterator[Path]:
    """Files that DVC cannot read; somebody may be about to write one.

    What lies elsewhere, behind a link, is nobody's queue.
    """
    here = experiments.resolve()
    for pattern in JSON:
        for file in sorted(experiments.glob(pattern)):
            if file.is_file() and file.resolve().is_relative_to(here) and not _is_json(file):
                yield file


def dead(experiments: Path) -> Iterator[Task]:
    """Experiments that seem to run, and no process is at work on them."""
    celery = experiments / "celery"
    for message in sorted(experiments.glob(TAKEN)):
        try:
            content = _object(message)
            task, experiment = content["headers"]["id"], _argument(content["body"])
            revision, name = experiment["stash_rev"], experiment["name"]
            if not re.fullmatch("[0-9a-f]{40}", revision):
                continue
        except (ValueError, LookupError, TypeError):
            continue
        if _object(celery / "result" / f"celery-task-meta-{task}").get("status") in ENDED:
            continue
        process = _object(experiments / "run" / revision / f"{revision}.json")
        was_killed = "pid" in process and process.get("returncode") is None
        if not _runs(process) and (was_killed or not is_used(celery)):
            yield Task(revision, name or revision[:7])


def _argument(body: str) -> dict[str, Any]:
    """The experiment that a message names: the first positional argument of its task."""
    (experiment, *_), *_ = json.loads(base64.b64decode(body))
    return dict(experiment)


def _runs(process: Any) -> bool:
    """Whether a process is at work, as DVC tells of it."""
    pid = process.get("pid") if isinstance(process, dict) else None
    return isinstance(pid, int) and pid > 0 and is_running(pid)


def _object(file: Path) -> dict[str, Any]:
    """The object in a file of JSON; empty where there is none."""
    try:
        return files.read_json(file, "")
    except UserError:
        return {}


def _is_json(file: Path) -> bool:
    """Whether a file can be read, and holds JSON."""
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return True
