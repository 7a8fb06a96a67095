"""What must hold before results are trusted: fresh, reproducible, good enough, no worse."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from refashion.base.errors import UserError
from refashion.base.params import Gate
from refashion.base.workspace import Workspace
from refashion.evaluation import comparison
from refashion.evaluation.statistics import holm
from refashion.reproduction import pipeline, reproduce, revisions, verdict, worktree
from refashion.reproduction.consistency import Check
from refashion.reproduction.worktree import State
from refashion.runs import listing
from refashion.runs.run import Columns, Run, in_checkout
from refashion.tracking import context

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
PERTURBED = {
    "one thread": ONE_THREAD,
    "lowest instruction set": {
        **ONE_THREAD,
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
}
"""Environments that must not change a result."""

PREDICTIONS = "predictions.csv"


def gate(
    workspace: Workspace,
    baseline: str | None = None,
    perturbed: Mapping[str, Mapping[str, str]] = PERTURBED,
) -> Iterator[Check]:
    """Check a workspace's results one by one, as the command `refashion gate` tells.

    Parameters
    ----------
    workspace : Workspace
        Whose results to check.
    baseline : str, optional
        Revision that no run may be significantly worse than.
    perturbed : mapping
        Name of an environment to the variables to set; results must come out the same in each.

    Raises
    ------
    UserError
        If nothing is committed, a stage fails, or the baseline cannot be compared with.
    """
    gates = workspace.params().gates
    then = None if baseline is None else (baseline, revisions.require(baseline, workspace.root))
    # Stages and files that no longer are what dvc.lock says.
    stale = sorted(json.loads(pipeline.dvc("status", "--json", "dvc.yaml", folder=workspace.root)))
    yield Check(
        name="fresh",
        holds=not stale,
        detail=f"changed: {', '.join(stale)}; run `dvc repro`" if stale else "nothing has changed",
    )
    runs = listing.of_pipeline(workspace)
    if all(run.has("record.json") for run in runs):
        yield from _reproduces(workspace, runs, perturbed)
    yield from good_enough(runs, gates)
    if then:
        yield from _no_worse(workspace, runs, *then)


def _reproduces(
    workspace: Workspace, runs: Sequence[Run], perturbed: Mapping[str, Mapping[str, str]]
) -> Iterator[Check]:
    """Make all runs again in all perturbed environments at once."""
    origin = context.gather(workspace.root)
    if origin.commit is None:
        raise UserError("gate: there is no commit to run again; commit first")
    lock = (workspace.root / "dvc.lock").read_bytes()
    state = State(commit=origin.commit, diff=origin.diff, lock=lock)
    stages = [run.record.stage for run in runs]
    with ExitStack() as stack:
        checkouts = [stack.enter_context(worktree.checkout(state, workspace)) for _ in perturbed]
        reruns = [
            stack.enter_context(pipeline.rerunning(checkout, stages, workspace, variables))
            for checkout, variables in zip(checkouts, perturbed.values(), strict=True)
        ]
        for name, checkout, finish in zip(perturbed, checkouts, reruns, strict=True):
            finish()
            verdicts = [verdict.compare(r, in_checkout(checkout, r.record)) for r in runs]
            details = [f"{v.name}: {v}" for v in verdicts if v.outcome != "identical"]
            yield Check(
                name=f"reproduces: {name}",
                holds=all(v.holds for v in verdicts),
                detail="; ".join(details) or f"{', '.join(run.name for run in runs)}: identical",
            )


def good_enough(runs: Sequence[Run], gates: Sequence[Gate]) -> Iterator[Check]:
    """Check metrics of runs against thresholds; a metric that is missing is not good enough."""
    metrics = {run.title: run.metrics for run in runs if run.has("metrics.json")}
    for gate in gates:
        value = metrics.get(gate.run, {}).get(gate.metric)
        yield Check(
            name=f"{gate.run}: {gate.metric}",
            holds=value is not None and gate.admits(value),
            detail=f"{'missing' if value is None else f'{value:.4f}'}, must be {gate}",
        )


def _no_worse(
    workspace: Workspace, runs: Sequence[Run], baseline: str, commit: str
) -> Iterator[Check]:
    """Check that no run classifies significantly fewer images correctly than at a revision."""
    now = {run.name: run.predictions for run in runs if run.has(PREDICTIONS)}
    before = _predictions_at(workspace, commit, set(now))
    pairs = {}
    for name in before:
        sides = {f"{name} at {baseline}": before[name], f"{name} now": now[name]}
        (pairs[name],) = comparison.compare(sides)["pairs"].values()
    p_values = dict(zip(pairs, holm([pair["p_value"] for pair in pairs.values()]), strict=True))
    for name in now:
        holds, detail = True, "new since then"
        if name in pairs:
            p, pair = p_values[name], pairs[name]
            only_before, only_now = pair["only_first"], pair["only_second"]
            holds = not (only_before > only_now and p <= comparison.SIGNIFICANCE)
            detail = f"correct only then {only_before}, only now {only_now}, p = {p:.2g}"
        yield Check(name=f"{name}: no worse than {baseline}", holds=holds, detail=detail)


def _predictions_at(workspace: Workspace, commit: str, names: set[str]) -> dict[str, Columns]:
    """A commit's predictions by run, from DVC's cache or, where it has none, made again."""
    with worktree.temporary_folder() as folder, ExitStack() as stack:
        old_runs = reproduce.from_commit(commit, folder, workspace)
        runs = {run.name: run for run in old_runs if run.name in names}
        missing = [run.record for run in runs.values() if not run.has(PREDICTIONS)]
        if missing:
            checkout = stack.enter_context(worktree.checkout(State(commit=commit), workspace))
            pipeline.rerun(checkout, [record.stage for record in missing], workspace)
            runs |= {record.name: in_checkout(checkout, record) for record in missing}
        return {name: run.predictions for name, run in runs.items()}
