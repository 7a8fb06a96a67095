"""Make a run again from nothing but its id, and say whether it came out the same."""

import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import pipeline, revisions, verdict, worktree
from refashion.reproduction.worktree import State
from refashion.runs import listing
from refashion.runs.run import Run, in_checkout
from refashion.tracking import context, published
from refashion.tracking.contents import HARDWARE
from refashion.tracking.published import PublishedRun
from refashion.tracking.store import Store


def find(
    text: str, folder: Path, store: Store | None, workspace: Workspace, name: str | None = None
) -> dict[State, list[tuple[str | None, Run]]]:
    """Find the runs that a text means, by the states of the project that they came out of.

    The text is the id of an MLflow run or its beginning, the name of a DVC experiment, or a git
    revision; without a store a revision alone. With a name, the run of this name alone is taken.
    Each run comes with its id in MLflow, None if it is known to git alone; its files are put in
    `folder`. `UserError` if the text means nothing, or no run of this name.
    """
    is_reference = revisions.is_reference(text, workspace.root)  # which no tag of a run can be
    published_runs = published.find(text, store) if store and not is_reference else []
    if store and published_runs:
        # A run of an older layout has no such tag: reading it tells which code can read it.
        chosen = [run for run in published_runs if name in (None, run.data.tags.get("name", name))]
        if not chosen:
            names = ", ".join(sorted({run.data.tags.get("name", "") for run in published_runs}))
            raise UserError(f"{text}: has no run of the name {name}; there are {names}")
        runs: dict[State, list[tuple[str | None, Run]]] = {}
        for mlflow_run in chosen:
            run = published.read(mlflow_run, folder / mlflow_run.info.run_id, store)
            runs.setdefault(_state(run), []).append((run.id, run.run))
        return runs
    commit = revisions.resolve(text, workspace.root)
    if commit is None:
        raise UserError(
            f"{text}: no run, experiment or revision of that name; runs are listed by `make ui`, "
            "experiments by `dvc exp list`"
        )
    of_commit = from_commit(commit, folder / commit, workspace, name)
    return {State(commit=commit): [(None, run) for run in of_commit]}


def _state(published_run: PublishedRun) -> State:
    """State of the project that a published run came out of."""
    tags, file = published_run.tags, published_run.run.file
    commit = tags.get("commit")
    if commit is None:
        raise UserError(
            f"run {published_run.id}: was made outside git, so its code is not known; choose a "
            "run that has a commit"
        )
    return State(
        commit=commit,
        diff=file("uncommitted.diff").read_bytes() if tags["dirty"] == "true" else b"",
        params=file("params.yaml").read_bytes(),
        lock=file("dvc.lock").read_bytes(),
    )


def from_commit(
    commit: str, folder: Path, workspace: Workspace, name: str | None = None
) -> list[Run]:
    """Copy the runs of a commit, given in full, to a folder: all, or that of a name.

    Of their files come those that git or DVC's cache has. `UserError` if the commit has no runs,
    none of this name, or runs of another layout.
    """
    with worktree.checkout(State(commit=commit), workspace) as checkout:
        pipeline.fetch_results(checkout)
        runs = listing.of_pipeline(checkout) if name is None else [listing.find(checkout, name)]
        records = [run.record for run in runs]
        if not records:
            raise UserError(f"commit {commit[:12]}: has no runs; choose one that has")
        for part in {part for record in records for part in record.folders}:
            if (checkout.root / part).exists():
                shutil.copytree(checkout.root / part, folder / part)
    return [replace(in_checkout(Workspace(folder), record), commit=commit) for record in records]


def reproduce(
    state: State,
    runs: Sequence[tuple[str | None, Run]],
    workspace: Workspace,
    isolated: bool = False,
) -> Iterator[dict[str, Any]]:
    """Make runs of one state again, each given with its id in MLflow, in a checkout of its own.

    That runs the code of the runs; `isolated`: as `refashion.reproduction.isolation` says.

    Yields
    ------
    dict
        Of every run its attestation, the verdict with all that it takes to believe it.
        ``verdict``: the fields of `Verdict`, and its ``line``; ``run_id``, ``run_key``,
        ``contract`` and ``commit`` of the run; digests of what its training came to, then
        (``expected``) and now (``actual``); ``environment``: what differs between then and now;
        ``machine``: hardware and versions of now; ``seconds`` that the training took now, if that
        is known; ``at``: when, UTC.

    Raises
    ------
    UserError
        If the state cannot be brought back, no source has the data, a stage fails, or the system
        cannot isolate it.
    """
    with worktree.checkout(state, workspace) as checkout:
        stages = [run.record.stage for _, run in runs]
        pipeline.rerun(checkout, stages, workspace, isolated=isolated)
        installed = packages(context.gather(workspace.root).environment)
        for run_id, expected in runs:
            actual = in_checkout(checkout, expected.record)
            log = actual.log or {}
            machine = {name: log.get(name) for name in HARDWARE}
            then, now = environment(expected), {**installed, **machine}
            result = verdict.compare(expected, actual)
            yield {
                "verdict": {**asdict(result), "line": str(result)},
                "run_id": run_id,
                "run_key": expected.record.run_key,
                "contract": expected.record.contract,
                "commit": state.commit,
                "expected": dict(expected.record.outputs),
                "actual": dict(actual.record.outputs),
                "environment": {k: [then[k], now.get(k)] for k in then if then[k] != now.get(k)},
                "machine": {**machine, "host": platform.node()},
                "seconds": log.get("seconds"),
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }


def lines(attestation: Mapping[str, Any]) -> Iterator[str]:
    """What `reproduce` has attested, for people."""
    run_id, result = attestation["run_id"], attestation["verdict"]
    source = f"run {run_id}" if run_id else "commit"
    yield f"{result['name']} ({source}, {attestation['commit'][:12]}): {result['line']}"
    for name, tensor in result["tensors"].items():
        share = f"{tensor['distance']:.2g} of its norm"
        yield f"  tensor {name}: differs by up to {tensor['largest']:.2g}, {share}"
    for name, difference in result["metrics"].items():
        yield f"  metric {name}: differs by {difference:.2g}"
    if result["note"]:
        yield f"  {result['note']}"
    if result["outcome"] != "identical":
        for name, (then, now) in attestation["environment"].items():
            yield f"  {name}: {then} then, {now} now"


def environment(run: Run) -> dict[str, Any]:
    """Hardware of a run, and versions of its packages, as far as they are known."""
    log = run.log or {}
    hardware = {name: log[name] for name in HARDWARE if log.get(name) is not None}
    text = run.file("environment.txt").read_text() if run.has("environment.txt") else ""
    return {**packages(text), **hardware}


def packages(text: str) -> dict[str, str]:
    """Version of every package that a file of requirements pins."""
    lines = (line.partition("==") for line in text.splitlines() if "==" in line)
    return {name: version for name, _, version in lines}


def publish(attestation: Mapping[str, Any], store: Store) -> None:
    """Write a verdict on the run: tags for the last one, an artifact for each."""
    run_id, at, machine = (attestation[name] for name in ("run_id", "at", "machine"))
    if run_id is None:
        return
    with worktree.temporary_folder() as folder:
        file = folder / f"{at.replace(':', '')}.json"
        file.write_text(json.dumps(attestation, indent=2, sort_keys=True) + "\n")
        store.client.log_artifact(run_id, str(file), "attestations")
    tags = {
        "": attestation["verdict"]["line"],
        "_at": at,
        "_by": "{device_name} ({cpu_capability}, {threads} threads)".format(**machine),
        "_on": "torch {torch}, Python {python}, {platform}".format(**machine),
    }
    for name, value in tags.items():
        store.client.set_tag(run_id, f"reproduced{name}", value)
