"""DVC experiments: a sweep as one, and a trial as one."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import pipeline, queue, revisions
from refashion.runs.record import Record, read
from refashion.runs.run import Run
from refashion.studies import classifiers

OF_VARIANT = ("hidden", "dropout", "lr")
"""Settings of a training that are a variant's own in ``params.yaml``."""


def define(variant: str, overrides: Iterable[str], **others: Any) -> tuple[str, dict[str, Any]]:
    """A sweep as ``params.yaml`` has it, and a name that follows from it.

    Parameters
    ----------
    variant
        What is trained.
    overrides
        As ``dvc exp run -S`` has them (Hydra's): ``lr=0.05,0.1``, ``seed=range(0,3)``,
        ``lr=interval(0.1,1)``, ``lr=tag(log,interval(0.01,1))``; one value is fixed.
    others
        ``search`` and ``trials``; those that are None are left out.

    Raises
    ------
    UserError
        If an override cannot be read.
    """
    space: dict[str, Any] = {}
    for name, values in map(_axis, overrides):
        if name in space:
            raise UserError(f"-S: {name} is given twice; give all its values at once")
        space[name] = values
    sweep: dict[str, Any] = {"variant": variant, "space": space}
    sweep |= {name: value for name, value in others.items() if value is not None}
    digest = sha256(json.dumps(sweep, sort_keys=True).encode()).hexdigest()
    # A name has 64 characters at most.
    return f"{variant[:55]}-{digest[:8]}", sweep


def _axis(text: str) -> tuple[str, Any]:
    """The name and the values of one setting."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import IntervalSweep, OverrideType, RangeSweep
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
        if override.type is not OverrideType.CHANGE or override.package is not None:
            raise HydraException("it sets nothing")
        name, values = override.key_or_group, override.value()
        if isinstance(values, RangeSweep):
            return name, {"range": [values.start, values.stop, values.step]}
        if isinstance(values, IntervalSweep):
            kind = "log" if "log" in values.tags else "uniform"
            return name, {kind: [values.start, values.end]}
        several = override.is_sweep_override()
        return name, [_plain(v) for v in (override.sweep_iterator() if several else [values])]
    except HydraException as error:
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"-S {text!r}: cannot be read ({reason}); write it as lr=0.05,0.1 or seed=range(0,3)"
        ) from None


def _plain(value: Any) -> Any:
    """A value of Hydra's as ``params.yaml`` may have it."""
    from hydra.core.override_parser.types import QuotedString
    from hydra.errors import HydraException

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if not isinstance(value, str | int | float | None):
        raise HydraException(f"{value} is no value of a setting")
    return value


def sweep(workspace: Workspace, name: str, definition: Mapping[str, Any] | None = None) -> None:
    """Run a sweep of ``params.yaml``, or one that a DVC experiment adds to it, and publish it.

    Raises
    ------
    UserError
        If DVC is at work in the workspace, ``params.yaml`` has no such sweep, the definition is not
        legal, there is an experiment of that name, or a stage fails.
    """
    target = f"stages/sweep/dvc.yaml:track_sweep@{name}"
    raw = params.read(workspace.params_file)
    there = params.validate(raw, workspace.params_file.name).sweeps
    if definition is None and name not in there:
        raise UserError(
            f"sweep {name!r} is not in params.yaml; there are {', '.join(there) or 'none'}. To "
            "sweep a variant, name settings: -S lr=0.05,0.1"
        )
    if definition is None or (raw.get("sweeps") or {}).get(name) == definition:
        with _alone(workspace):
            if definition:  # as an experiment that was interrupted leaves it
                print(f"{name}: is in params.yaml, so it runs in the workspace", file=sys.stderr)
            _run(workspace, "-m", "dvc", "repro", target)
            # In a fresh clone dvc.lock says that this was published; this machine has nothing yet.
            _run(workspace, "stages", "track", name)
        return
    if name in there:
        raise UserError(f"{name}: params.yaml has another sweep of that name; choose a --name")
    params.validate({**raw, "sweeps": {name: definition}}, "-S")
    with _alone(workspace):
        _experiment(workspace, name, _flat({f"+sweeps.{name}": definition}), target)


def promote(workspace: Workspace, trial: Run, name: str) -> Record:
    """Make a DVC experiment that trains the variant of a trial with the trial's settings.

    It is run aside, so the workspace stays as it is. Returns its record.

    Raises
    ------
    UserError
        If the run is no trial, ``params.yaml`` does not have its variant or has all its settings,
        DVC is at work in the workspace, there is an experiment of that name, or a stage fails.
    """
    now, wanted = workspace.params(), trial.record
    variant = wanted.name.partition("/")[2].partition(".trial_")[0]
    if ".trial_" not in wanted.name:
        raise UserError(f"{trial.title}: is no trial of a sweep; its trials.csv names them")
    present = classifiers.settings(now, variant).as_dict()
    own = OF_VARIANT if now.lr is None else OF_VARIANT[:2]
    changes = {
        f"++variants.{variant}.{key}" if key in own else key: value
        for key, value in wanted.params.items()
        if present[key] != value
    }
    data = now.data.model_dump()
    changes |= {f"data.{k}": v for k, v in wanted.data.items() if data[k] != v}
    if not changes:
        raise UserError(f"{trial.title}: has the settings of params.yaml; `dvc repro` trains it")
    with _alone(workspace):  # before it runs aside, DVC writes its settings into the workspace
        pass
    _experiment(workspace, name, _flat(changes), f"track@{variant}", "--temp")
    commit, _ = revisions.experiments(workspace.root)[name]
    file = workspace.relative(workspace.variant_folders(variant)[0] / "record.json")
    made = read(revisions.git("show", f"{commit}:{file}", folder=workspace.root))
    assert made  # by this very code
    return made


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    """Let one sweep at a time into a workspace, while no other DVC process runs stages there.

    Of two at once, each would change the settings under the other. `UserError` for the second.
    """
    import filelock

    tmp = workspace.root / ".dvc" / "tmp"
    refusal = UserError("a sweep or DVC is at work in this checkout; wait for its end")
    try:
        with filelock.FileLock(tmp / "sweep.lock", timeout=1):  # a promotion holds it to look
            if queue.runs_in_workspace(tmp / "exps") or queue.writes_in_workspace(tmp / "exps"):
                raise refusal
            yield
    except filelock.Timeout:
        raise refusal from None


def _flat(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as overrides, a key for each that is no mapping; Hydra reads no quoted keys."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat({f"{key}.{name}": inner for name, inner in value.items()})
        else:
            yield f"{key}={json.dumps(value)}"


def _experiment(
    workspace: Workspace, name: str, changes: Iterable[str], target: str, *options: str
) -> None:
    """Run one DVC experiment; its name must be free."""
    if name in revisions.experiments(workspace.root):
        raise UserError(
            f"{name}: there is a DVC experiment of that name; `dvc exp apply {name}` brings it "
            "back, and --name chooses another"
        )
    overrides = [word for change in changes for word in ("-S", change)]
    _run(workspace, "-m", "dvc", "exp", "run", "--name", name, *options, *overrides, target)


def _run(workspace: Workspace, *arguments: str) -> None:
    """Run a Python program that takes long; `UserError` if it fails."""
    command = [sys.executable, *arguments]
    if not pipeline.run(command, workspace.root, pipeline.environment()):
        raise UserError(f"{arguments[-1]}: failed, as told above; mend that first")
