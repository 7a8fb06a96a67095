"""Imported by every Python that starts with this folder on its path: notes the files it opens."""

import atexit
import json
import os
import sys
from pathlib import Path

ROOT = os.environ["AUDIT_ROOT"] + os.sep
opened: set[str] = set()


def note(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str):
        return
    path, mode = arguments[:2]
    # What shutil.rmtree opens without a mode is relative to a folder that is not told.
    if mode is not None or os.path.isabs(path):  # noqa: PTH117 (runs before pathlib may)
        opened.add(os.path.abspath(path))  # noqa: PTH100


def report() -> None:
    inside = sorted(path.removeprefix(ROOT) for path in opened if path.startswith(ROOT))
    if stage := os.environ.get("DVC_STAGE"):
        folder = Path(os.environ["AUDIT_LOG"])
        name = stage.rpartition(":")[2].replace("@", "-")  # without the folder of its dvc.yaml
        (folder / f"{name}.{os.getpid()}.json").write_text(json.dumps(inside))


if os.environ.get("DVC_STAGE"):
    sys.addaudithook(note)
    atexit.register(report)
