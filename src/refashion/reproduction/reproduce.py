"""Make a run again from nothing but its id, and say whether it came out the same."""

import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import verdict, worktree
from refashion.reproduction.verdict import Verdict
from refashion.reproduction.worktree import State
from refashion.runs import listing
from refashion.runs.run import Run, in_checkout
from refashion.tracking import context, published
from refashion.tracking.contents import HARDWARE
from refashion.tracking.published import PublishedRun
from refashion.tracking.store import Store


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """A verdict with all that it takes to believe it."""

    verdict: Verdict
    run_id: str | None
    """MLflow's id; None for a run known to git alone."""
    run_key: str
    contract: str
    commit: str
    expected: dict[str, str]
    """Digests of what the run's training came to."""
    actual: dict[str, str]
    """Digests of what came out now."""
    environment: dict[str, list[Any]]
    """What differs between then and now."""
    machine: dict[str, Any]
    """Hardware and versions of this rerun."""
    seconds: float | None
    """That the training took now."""
    at: str
    """When, UTC."""

    def lines(self) -> Iterator[str]:
        """For people."""
        source = f"run {self.run_id}" if self.run_id else "commit"
        yield f"{self.verdict.name} ({source}, {self.commit[:12]}): {self.verdict}"
        for name, tensor in self.verdict.tensors.items():
            share = f"{tensor.distance:.2g} of its norm"
            yield f"  tensor {name}: differs by up to {tensor.largest:.2g}, {share}"
        for name, difference in self.verdict.metrics.items():
            yield f"  metric {name}: differs by {difference:.2g}"
        if self.verdict.note:
            yield f"  {self.verdict.note}"
        if self.verdict.outcome != "identical":
            for name, (then, now) in self.environment.items():
                yield f"  {name}: {then} then, {now} now"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = asdict(self)
        values["verdict"]["line"] = str(self.verdict)
        return values


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Runs that came out of one state of the project."""

    state: State

    runs: Sequence[tuple[str | None, Run]]
    """MLflow's id, None of a run known to git alone; and the run."""


def claims(
    text: str, folder: Path, store: Store | None, workspace: Workspace, name: str | None = None
) -> list[Claim]:
    """Find the runs that a text means, by the states of the project that they came out of.

    Parameters
    ----------
    text : str
        Id of an MLflow run or its beginning, name of a DVC experiment, or a git revision.
    folder : Path
        Where to put the files of the runs.
    store : Store or None
        Where published runs are; None: the text must be a revision.
    workspace : Workspace
        Whose repository has the commits.
    name : str, optional
        Take the run of this name alone.

    Raises
    ------
    UserError
        If the text means nothing, or no run of this name.
    """
    runs = published.find(text, store) if store else []
    if store and runs:
        # A run of an older layout has no such tag: reading it tells which code can read it.
        chosen = [run for run in runs if name in (None, run.data.tags.get("name", name))]
        if not chosen:
            names = ", ".join(sorted({run.data.tags["name"] for run in runs}))
            raise UserError(f"{text}: has no run of the name {name}; there are {names}")
        grouped: dict[State, list[tuple[str | None, Run]]] = {}
        for mlflow_run in chosen:
            run = published.read(mlflow_run, folder / mlflow_run.info.run_id, store)
            grouped.setdefault(_state(run), []).append((run.id, run.run))
        return [Claim(state=state, runs=runs) for state, runs in grouped.items()]
    commit = worktree.resolve(text, workspace.root)
    if commit is None:
        raise UserError(
            f"{text}: no run, experiment or revision of that name; runs are listed by `make ui`, "
            "experiments by `dvc exp list`"
        )
    return [from_revision(commit, folder / commit, workspace, name)]


def _state(published_run: PublishedRun) -> State:
    """State of the project that a published run came out of."""
    tags, file = published_run.tags, published_run.run.file
    commit = tags.get("git_commit")
    if commit is None:
        raise UserError(
            f"run {published_run.id}: was made outside git, so its code is not known; choose a "
            "run that has a commit"
        )
    return State(
        commit=commit,
        diff=file("uncommitted.diff").read_bytes() if tags["git_dirty"] == "true" else b"",
        params=file("params.yaml").read_bytes(),
        lock=file("dvc.lock").read_bytes(),
    )


def from_revision(
    commit: str, folder: Path, workspace: Workspace, name: str | None = None
) -> Claim:
    """Take the runs of a commit, and of their files those that git or DVC's cache has.

    Parameters
    ----------
    commit : str
        Full hash.
    folder, workspace, name
        As for `claims`.

    Raises
    ------
    UserError
        If the commit has no runs, none of this name, or runs of another layout.
    """
    state = State(commit=commit)
    with worktree.checkout(state, workspace) as checkout:
        worktree.fetch_results(checkout)
        runs = listing.of_pipeline(checkout) if name is None else [listing.find(checkout, name)]
        records = [run.record for run in runs]
        if not records:
            raise UserError(f"commit {commit[:12]}: has no runs; choose one that has")
        for part in {part for record in records for part in record.folders}:
            if (checkout.root / part).exists():
                shutil.copytree(checkout.root / part, folder / part)
    copies = [replace(in_checkout(Workspace(folder), record), commit=commit) for record in records]
    return Claim(state=state, runs=[(None, run) for run in copies])


def reproduce(claim: Claim, workspace: Workspace) -> Iterator[Attestation]:
    """Make all runs of a claim again, in a checkout of its own; one attestation for each.

    Raises
    ------
    UserError
        If the state cannot be brought back, no source has the data, or a stage fails.
    """
    with worktree.checkout(claim.state, workspace) as checkout:
        worktree.rerun(checkout, [run.record.stage for _, run in claim.runs], workspace)
        installed = packages(context.gather(workspace.root).environment)
        for run_id, expected in claim.runs:
            actual = in_checkout(checkout, expected.record)
            log = actual.log or {}
            machine = {name: log.get(name) for name in HARDWARE}
            then, now = environment(expected), {**installed, **machine}
            yield Attestation(
                verdict=verdict.compare(expected, actual),
                run_id=run_id,
                run_key=expected.record.run_key,
                contract=expected.record.contract,
                commit=claim.state.commit,
                expected=dict(expected.record.outputs),
                actual=dict(actual.record.outputs),
                environment={k: [then[k], now.get(k)] for k in then if then[k] != now.get(k)},
                machine={**machine, "host": platform.node()},
                seconds=log.get("seconds"),
                at=datetime.now(UTC).isoformat(timespec="seconds"),
            )


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


def publish(attestation: Attestation, store: Store) -> None:
    """Write a verdict on the run: tags for the last one, an artifact for each."""
    run_id = attestation.run_id
    if run_id is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{attestation.at.replace(':', '')}.json"
        file.write_text(json.dumps(attestation.as_dict(), indent=2, sort_keys=True) + "\n")
        store.client.log_artifact(run_id, str(file), "attestations")
    machine = attestation.machine
    tags = {
        "": str(attestation.verdict),
        "_at": attestation.at,
        "_by": "{device_name} ({cpu_capability}, {threads} threads)".format(**machine),
        "_on": "torch {torch}, Python {python}, {platform}".format(**machine),
    }
    for name, value in tags.items():
        store.client.set_tag(run_id, f"reproduced{name}", value)
