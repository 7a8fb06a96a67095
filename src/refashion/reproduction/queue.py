"""DVC's queue of experiments: what workers that were killed have left in its files.

A message of the queue's lies in ``broker/in`` until a worker moves it to ``broker/processed``; it
names the experiment's task, whose state is in ``result`` once it has ended, and whose process is
told in a folder of ``run``. All of these are JSON, and written where they lie: while one is empty
or half there, no command of DVC's queue works.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


def damaged(experiments: Path) -> Iterator[Path]:
    """Files that DVC cannot read; somebody may be about to write one."""
    for pattern in JSON:
        for file in sorted(experiments.glob(pattern)):
            if file.is_file() and _read(file) is None:
                yield file


def dead(experiments: Path) -> Iterator[Task]:
    """Experiments that seem to run, and no process is at work on them."""
    results, workers = experiments / "celery" / "result", experiments / "celery"
    for message in sorted(experiments.glob(TAKEN)):
        try:
            content = json.loads(message.read_bytes())
            task, experiment = content["headers"]["id"], _argument(content["body"])
            revision, name = experiment["stash_rev"], experiment["name"]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        state = _read(results / f"celery-task-meta-{task}") or {}
        if state.get("status") in ENDED:
            continue
        process = _read(experiments / "run" / revision / f"{revision}.json") or {}
        pid, code = process.get("pid"), process.get("returncode")
        if pid and is_running(pid):
            continue
        if (pid and code is None) or not is_used(workers):
            yield Task(revision, name or revision[:7])


def _argument(body: str) -> dict[str, Any]:
    """The experiment that a message names: the first positional argument of its task."""
    (experiment, *_), *_ = json.loads(base64.b64decode(body))
    return dict(experiment)


def _read(file: Path) -> Any:
    """Contents of a file of JSON; None where it is missing or is no JSON."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
