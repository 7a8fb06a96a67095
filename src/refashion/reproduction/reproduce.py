"""Run a training again from nothing but its run's id, and say what came of it."""

import json
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from refashion.base import params, paths
from refashion.base.errors import UserError
from refashion.reproduction import verdict, worktree
from refashion.reproduction.verdict import Verdict
from refashion.reproduction.worktree import State
from refashion.tracking import context, runs
from refashion.tracking.contents import HARDWARE
from refashion.tracking.results import Results, everything
from refashion.tracking.runs import Published
from refashion.tracking.store import Store

TAGS = ("reproduced", "reproduced_at", "reproduced_by", "reproduced_on")
"""Of the run: verdict, time, who, and on what."""


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """A verdict with all that it takes to believe it."""

    verdict: Verdict
    run_id: str | None
    """MLflow's id; None for a result known to git alone."""
    run_key: str
    contract: str
    commit: str
    expected: dict[str, str]
    """Digests of what the run's training came to."""
    found: dict[str, str]
    """Digests of what came out now."""
    environment: dict[str, list[Any]]
    """What differs between then and now."""
    machine: dict[str, Any]
    """Hardware and versions of this rerun."""
    seconds: float | None
    """That the training took now."""
    at: str
    """When, UTC."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        found = asdict(self)
        found["verdict"] = {**found["verdict"], "line": str(self.verdict)}
        return found


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Results that came out of one state of the project."""

    state: State
    results: Sequence[Results]
    """All that is to be run again."""


def claims(text: str, folder: Path, store: Store | None, variant: str | None = None) -> list[Claim]:
    """Find the results that a text means.

    Parameters
    ----------
    text : str
        Id of an MLflow run or its beginning, name of a DVC experiment, or a git revision.
    folder : Path
        Where to put what is read back.
    store : Store or None
        Where runs are; None: nowhere, then the text must be a revision.
    variant : str, optional
        Take this one alone.

    Raises
    ------
    UserError
        If the text means nothing, or nothing of this variant.
    """
    found = runs.find(text, store) if store else []
    if store and found:
        there = {run.data.tags["variant"] for run in found}
        chosen = [run for run in found if variant in (None, run.data.tags["variant"])]
        if not chosen:
            raise UserError(f"{text}: has no variant {variant!r}; there are {', '.join(there)}")
        grouped: dict[State, list[Results]] = {}
        for run in chosen:
            published = runs.read(run, folder / run.info.run_id, store)
            grouped.setdefault(_state(published), []).append(published)
        return [Claim(state=state, results=results) for state, results in grouped.items()]
    commit = worktree.resolve(text)
    if commit is None:
        raise UserError(
            f"{text}: no run, experiment or revision of that name; runs are listed by `make ui`, "
            "experiments by `dvc exp list`"
        )
    return [from_revision(commit, folder / commit, variant)]


def _state(published: Published) -> State:
    commit = published.tags.get("git_commit")
    if commit is None:
        raise UserError(
            f"run {published.run_id}: was made outside git, so its code is not known; choose a "
            "run that has a commit"
        )
    dirty = published.tags["git_dirty"] == "true"
    return State(
        commit=commit,
        diff=published.artifact("uncommitted.diff").read_bytes() if dirty else b"",
        params=published.artifact("params.yaml").read_bytes(),
        lock=published.artifact("dvc.lock").read_bytes(),
    )


def from_revision(commit: str, folder: Path, variant: str | None = None) -> Claim:
    """Take what a commit says of its results; weights and predictions as far as DVC has them."""
    state = State(commit=commit)
    with worktree.checkout(state) as root:
        variants = params.load(root / "params.yaml").variants
        found = everything(root, variants)
        chosen = [one for one in found if variant in (None, one.variant)]
        if not chosen:
            names = ", ".join(one.variant for one in found)
            raise UserError(f"{commit[:12]}: has no variant {variant!r}; there are {names}")
        worktree.fetch([path for one in chosen for path in one.cached], root)
        for path in (paths.MODELS, paths.REPORTS):
            here = root / path.relative_to(paths.ROOT)
            shutil.copytree(here, folder / here.name, dirs_exist_ok=True)
    results = [one.at(folder) for one in chosen]
    for one in results:
        one.file(one.training_files[0])
    return Claim(state=state, results=results)


def reproduce(claim: Claim) -> Iterator[Attestation]:
    """Run all results of a claim again in a checkout of its own.

    Yields
    ------
    Attestation
        One for every variant.

    Raises
    ------
    UserError
        If the state cannot be brought back, no source has the data, or a stage fails.
    """
    with worktree.checkout(claim.state) as root:
        worktree.rerun(root, list(dict.fromkeys(one.stage for one in claim.results)))
        for expected in claim.results:
            yield _attest(claim.state, expected, expected.at(root))


def _attest(state: State, expected: Results, found: Results) -> Attestation:
    now = {name: (found.log or {}).get(name) for name in HARDWARE}
    published = expected if isinstance(expected, Published) else None
    return Attestation(
        verdict=verdict.compare(expected, found),
        run_id=published.run_id if published else None,
        run_key=expected.record["run_key"],
        contract=expected.record["contract"],
        commit=state.commit,
        expected=expected.record["outputs"],
        found=found.record["outputs"],
        environment=environment_differences(published, now) if published else {},
        machine={**now, "host": platform.node()},
        seconds=(found.log or {}).get("seconds"),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def environment_differences(published: Published, now: dict[str, Any]) -> dict[str, list[Any]]:
    """Hardware and packages of a run that differ from these, as pairs of then and now."""
    then = {name: published.tags.get(name) for name in HARDWARE}
    pairs = {name: [then[name], str(now[name])] for name in HARDWARE if then[name] is not None}
    packages = requirements(published.artifact("environment.txt").read_text(encoding="utf-8"))
    present = requirements(context.gather(paths.ROOT).environment)
    for name in sorted({*packages, *present}) if packages else ():  # rebuilt runs have no list
        pairs[name] = [packages.get(name), present.get(name)]
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def requirements(text: str) -> dict[str, str]:
    """Version of every package that a file of requirements pins."""
    lines = (line.partition("==") for line in text.splitlines() if "==" in line)
    return {name: version for name, _, version in lines}


def publish(attestation: Attestation, store: Store) -> None:
    """Write the verdict on the run: tags for the last one, an artifact for each."""
    run_id = attestation.run_id
    if run_id is None:
        return
    machine = attestation.machine
    values = (
        str(attestation.verdict),
        attestation.at,
        f"{machine['device_name']} ({machine['cpu_capability']}, {machine['threads']} threads)",
        f"torch {machine['torch']}, Python {machine['python']}, {machine['platform']}",
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{attestation.at.replace(':', '')}.json"
        file.write_text(json.dumps(attestation.as_dict(), indent=2, sort_keys=True) + "\n")
        store.client.log_artifact(run_id, str(file), "attestations")
    for name, value in zip(TAGS, values, strict=True):
        store.client.set_tag(run_id, name, value)
