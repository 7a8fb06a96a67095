"""What a published run promises of itself, and what of it is missing or was altered."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refashion.base import files
from refashion.base.errors import UserError
from refashion.runs.run import WEIGHTS, Run, in_folder
from refashion.tracking import contents, logged_model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PUBLISHED = "refashion.published"
"""The tag that tells who is publishing, and since when; at last it is `COMPLETE`."""

COMPLETE = "complete"

RESULT, EVALUATION = "refashion.result", "refashion.evaluation"
"""The tags with the digests of what the training left, and of what was measured after it."""

DIGESTS = "digests.json"
"""The artifact with the digests of all others, and the tags that the run was published with."""

LONGEST_NAME = 200
"""Characters in the path of an artifact: what no system of files takes is none."""

OF_DIGESTS = "refashion.digests"
"""The tag with that artifact's own digest."""


def promised(published: "MlflowRun", folder: Path) -> dict[str, dict[str, str]] | None:
    """What the digests among a run's artifacts, in a folder, promise; None if they are no digests.

    That is the digests of its ``files`` and of those of its ``model``, and the ``tags`` that it was
    published with.
    """
    if files.altered(folder, {DIGESTS: published.data.tags.get(OF_DIGESTS, "")}):
        return None
    try:
        content = json.loads((folder / DIGESTS).read_bytes())
    except (ValueError, RecursionError):
        return None
    return content if _is_promise(content) else None


def _is_promise(content: Any) -> bool:
    """Whether digests, whose tag may be forged too, have the form that `write_digests` gives."""
    if not isinstance(content, dict) or content.keys() != {"files", "model", "tags"}:
        return False
    for part in content.values():
        if not isinstance(part, dict) or not all(isinstance(v, str) for v in part.values()):
            return False
    names = content["files"].keys() | content["model"].keys()
    are_names = all(files.is_inside(name) and len(name) <= LONGEST_NAME for name in names)
    return are_names and {"record.json", "metrics.json"} <= content["files"].keys()


def faults(published: "MlflowRun", folder: Path) -> Iterator[str]:
    """What is missing or altered of a run, whose artifacts are in a folder, the worst first."""
    tags, metrics = published.data.tags, published.data.metrics
    was_altered = "was altered after it was published"
    if OF_DIGESTS not in tags:
        yield f"its tag {OF_DIGESTS} is missing"
        return
    content = promised(published, folder)
    lost = files.altered(folder, content["files"]) if content else [DIGESTS]
    for name in lost:
        is_there = (folder / name).is_file()
        yield f"its artifact {name} {was_altered if is_there else 'is missing'}"
    if lost or content is None:
        return
    run = in_folder(folder, f"run {published.info.run_id}")
    of_record = {RESULT: run.record.result, EVALUATION: run.measured}
    for key, value in {"commit": None, "dirty": None, **content["tags"], **of_record}.items():
        if tags.get(key) != value:
            yield f"its tag {key} {was_altered}"
    if contents.params(run) != published.data.params:
        yield "its params are not those of its record"
    for metric in contents.final_metrics(run, 0):
        if metrics.get(metric.key) != metric.value:
            yield f"its metric {metric.key} {was_altered}"


def is_faulty(
    published: "MlflowRun", run: Run, is_one_of_many: bool, client: "MlflowClient"
) -> bool:
    """Whether anything of a run or of its model is missing or altered."""
    if is_one_of_many and not published.info.artifact_uri.startswith("file:"):
        names = {item.path for item in client.list_artifacts(published.info.run_id)}
        return not names.issuperset([DIGESTS, *(file.name for file in run.files)])
    with logged_model.artifacts(published.info.artifact_uri, client) as folder:
        content = promised(published, folder)
        try:
            if content is None or next(faults(published, folder), None):
                return True
        except UserError:  # with forged digests, a record that is none
            return True
    has_weights = WEIGHTS in content["files"]
    return has_weights and logged_model.is_altered(published, content["model"], client)


def write_digests(
    folder: Path, kept: Mapping[str, str], tags: Mapping[str, str], of_model: Mapping[str, str]
) -> str:
    """Write the digests of a folder's files, of others and of a model's, and give its own."""
    promise = {"files": {**kept, **files.digests(folder)}, "model": of_model, "tags": tags}
    files.write_json(folder / DIGESTS, promise)
    return files.sha256(folder / DIGESTS)
