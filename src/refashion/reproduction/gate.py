"""What must hold before results are trusted: fresh, reproducible, good enough, no worse."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from refashion import studies
from refashion.base import params, paths
from refashion.base.errors import UserError
from refashion.base.params import Threshold
from refashion.evaluation import predictions
from refashion.evaluation.comparison import SIGNIFICANCE
from refashion.evaluation.predictions import Predictions
from refashion.evaluation.statistics import holm, mcnemar
from refashion.reproduction import reproduce, verdict, verify, worktree
from refashion.reproduction.worktree import State
from refashion.tracking import context
from refashion.tracking.results import Results, everything

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was asked."""

    name: str
    holds: bool
    detail: str


def gate(baseline: str | None = None) -> Iterator[Check]:
    """Put the workspace's results to every test.

    Parameters
    ----------
    baseline : str, optional
        Revision that no variant may be significantly worse than.

    Yields
    ------
    Check
        Each when it is known.
    """
    settings = params.load()
    variants = list(settings.variants)
    stale = _stale()
    yield Check(
        name="fresh",
        holds=not stale,
        detail=f"changed: {', '.join(stale)}; run `dvc repro`" if stale else "nothing has changed",
    )
    found = everything(paths.ROOT, variants)
    if all(one.has(one.training_files[0]) for one in found):
        yield from _reproduces(found)
    yield from _good_enough(settings.gates)
    if baseline is not None:
        yield from _no_worse(baseline, variants)


def summary(checks: list[Check]) -> str:
    """The checks as a table in Markdown."""
    held = all(check.holds for check in checks)
    lines = [
        f"## Gate: {'holds' if held else 'does not hold'}",
        "",
        "| check | holds | detail |",
        "|---|---|---|",
    ]
    for check in checks:
        detail = check.detail.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {check.name} | {'yes' if check.holds else '**no**'} | {detail} |")
    return "\n".join(lines) + "\n"


def _stale() -> list[str]:
    """Stages and files that no longer are what ``dvc.lock`` says."""
    done = worktree.dvc(["status", "--json", "dvc.yaml"], paths.ROOT)
    if done.returncode:
        raise UserError(f"dvc status: {' '.join(done.stderr.split())}")
    return sorted(json.loads(done.stdout))


def _reproduces(found: list[Results]) -> Iterator[Check]:
    """Run everything again in every perturbed environment, side by side."""
    origin = context.gather(paths.ROOT)
    if origin.commit is None:
        raise UserError("gate: there is no commit to run again; commit first")
    lock = (paths.ROOT / "dvc.lock").read_bytes()
    state = State(commit=origin.commit, diff=origin.diff, lock=lock)
    with ExitStack() as stack:
        roots = [stack.enter_context(worktree.checkout(state)) for _ in PERTURBED]
        pool = stack.enter_context(ThreadPoolExecutor())
        list(pool.map(worktree.rerun, roots, repeat(verify.LAST), PERTURBED.values()))
        for name, root in zip(PERTURBED, roots, strict=True):
            verdicts = [verdict.compare(one, one.at(root)) for one in found]
            told = [f"{v.variant}: {v}" for v in verdicts if v.outcome != "identical"]
            yield Check(
                name=f"reproduces: {name}",
                holds=all(v.holds for v in verdicts),
                detail="; ".join(told) or f"{', '.join(one.variant for one in found)}: identical",
            )


def _good_enough(gates: Mapping[str, Mapping[str, Threshold]]) -> Iterator[Check]:
    for variant, thresholds in gates.items():
        file = paths.study_metrics(variant) if variant in studies.NAMES else paths.metrics(variant)
        metrics: dict[str, Any] = {}
        if file.exists():
            metrics = verdict.flat(json.loads(file.read_text(encoding="utf-8")))
        for metric, threshold in thresholds.items():
            value = metrics.get(metric)
            yield Check(
                name=f"{variant}: {metric}",
                holds=value is not None and threshold.admits(value),
                detail=f"{'missing' if value is None else f'{value:.4f}'}, asked {threshold}",
            )


def _no_worse(baseline: str, variants: list[str]) -> Iterator[Check]:
    before = _predictions_at(baseline)
    now = {v: predictions.read(paths.predictions(v)) for v in variants if v in before}
    counts = {v: _discordant(v, before[v], now[v]) for v in now}
    p_values = dict(zip(counts, holm([mcnemar(*pair) for pair in counts.values()]), strict=True))
    for variant, (only_before, only_now) in counts.items():
        p = p_values[variant]
        yield Check(
            name=f"{variant}: no worse than {baseline}",
            holds=not (only_before > only_now and p <= SIGNIFICANCE),
            detail=f"right then alone {only_before}, right now alone {only_now}, p = {p:.2g}",
        )
    for variant in variants:
        if variant not in before:
            yield Check(
                name=f"{variant}: no worse than {baseline}", holds=True, detail="new since then"
            )


def _discordant(variant: str, before: Predictions, now: Predictions) -> tuple[int, int]:
    if before.actual != now.actual:
        raise UserError(
            f"{variant}: the baseline was evaluated on another test set; choose another"
        )
    pairs = list(zip(before.correct, now.correct, strict=True))
    return pairs.count((True, False)), pairs.count((False, True))


def _predictions_at(revision: str) -> dict[str, Predictions]:
    """A revision's predictions, from DVC's cache or, where it has none, made again."""
    commit = worktree.require(revision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        claim = reproduce.from_revision(commit, folder)
        known = [one for one in claim.results if one.answers]
        missing = [one for one in known if not one.has(one.answers[0])]
        if missing:
            with worktree.checkout(claim.state) as root:
                worktree.rerun(root, [one.stage for one in missing])
                for one in missing:
                    path = one.answers[0].relative_to(paths.ROOT)
                    shutil.copyfile(root / path, folder / path)
        return {one.variant: predictions.read(one.file(one.answers[0])) for one in known}
