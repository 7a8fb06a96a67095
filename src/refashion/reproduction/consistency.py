"""Whether what is committed fits together: in seconds, without data, training or DVC's cache."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from refashion.base import files, params
from refashion.base.errors import UserError
from refashion.base.params import yaml12
from refashion.base.workspace import Workspace
from refashion.reproduction import worktree
from refashion.runs.run import WEIGHTS, Run, in_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A condition that results must meet, and whether they do."""

    name: str
    holds: bool
    detail: str


def summary(checks: Sequence[Check]) -> str:
    """The checks as a table in Markdown."""
    held = all(check.holds for check in checks)
    title = f"## Gate: {'holds' if held else 'does not hold'}\n"
    lines = [title, "| check | holds | detail |", "|---|---|---|"]
    for check in checks:
        detail = check.detail.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {check.name} | {'yes' if check.holds else '**no**'} | {detail} |")
    return "\n".join(lines) + "\n"


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Entry(_Strict):
    """A file or folder in ``dvc.lock``."""

    path: str
    hash: Literal["md5"]
    md5: str
    size: int
    nfiles: int | None = None
    """Of a folder, whose `md5` is that of its listing."""


class Stage(_Strict):
    """A stage in ``dvc.lock``."""

    cmd: str
    deps: list[Entry] = []
    params: dict[Literal["params.yaml"], dict[str, Any]] = {}
    outs: list[Entry] = []


class Lock(_Strict):
    """Content of ``dvc.lock``."""

    version: Literal["2.0"] = Field(alias="schema")
    stages: dict[str, Stage]


def check(workspace: Workspace) -> Iterator[Check]:
    """Compare files in git, ``dvc.lock``, ``dvc.yaml``, ``params.yaml`` and records.

    Of what is not in git, the lock's own entries are compared: an output with the deps that it is,
    or that it is part of. The listing of a folder of such folders is unknown: of ``dvc.lock``,
    only its digest is beyond this check.

    Yields
    ------
    Check
        One that does not hold for every file at fault, with what is wrong and what to do; or one
        that holds.

    Raises
    ------
    UserError
        If the workspace is not in git, or ``params.yaml`` or a ``dvc.yaml`` cannot be read.
    """
    settings = params.read(workspace.params_file)
    faults: list[tuple[str, str]] = []
    stages: dict[str, Stage] = {}
    for file in (workspace.root / "dvc.yaml", *workspace.root.glob("stages/*/dvc.yaml")):
        address, name = workspace.relative(file), workspace.relative(file.with_name("dvc.lock"))
        try:
            pipeline = _unrolled(yaml12.parse(file.read_bytes()), settings)
        except ValueError as error:
            raise UserError(f"{address}: {error}; mend that first") from None
        try:
            lock = Lock.model_validate(yaml12.parse((workspace.root / name).read_bytes()))
        except (ValueError, OSError) as error:
            faults.append((name, f"cannot be read ({_reason(error)}); {_cures(name, [address])}"))
            continue
        cure = f"run `dvc repro {address}`"
        faults += [(name, f"{fault}; {cure}") for fault in _stale(pipeline, lock, settings)]
        gone = [stage for stage in lock.stages if stage not in pipeline]
        faults += [(name, f"has the stage {s}, {address} has not; delete it there") for s in gone]
        stages |= {f"{address}:{n}": lock.stages[n] for n in pipeline if n in lock.stages}
    tracked = worktree.git("ls-files", "-z", folder=workspace.root).decode().split("\0")[:-1]
    faults += _altered(workspace.root, tracked, stages)
    records = [name for name in tracked if name.endswith("/record.json") and _maker(name, stages)]
    for name in records:
        cure = f"`dvc repro --force {_maker(name, stages)}` makes it anew"
        run = in_folder((workspace.root / name).parent, name.removesuffix("/record.json"))
        try:
            wrong = list(_contradictions(run, stages[_maker(name, stages)]))
        except (UserError, ValueError) as error:
            wrong = [str(error)]
        faults += [(name, f"{fault}; {cure}") for fault in wrong]
    for name, fault in faults:
        yield Check(name=f"consistent: {name}", holds=False, detail=fault)
    if not faults:
        told = f"{len(stages)} stages and {len(records)} records fit {len(tracked)} files"
        yield Check(name="consistent", holds=True, detail=told)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return getattr(error, "strerror", None) or str(error)


def _cures(path: str, stages: Sequence[str]) -> str:
    """What to do about a file that is at odds with stages."""
    pipelines = " ".join(sorted({stage.partition(":")[0] for stage in stages}))
    return f"`git checkout HEAD -- {path}` if it was changed in error, or `dvc repro {pipelines}`"


def _unrolled(pipeline: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stages of a ``dvc.yaml`` by name, those of a ``foreach`` one by one."""
    stages = {}
    for name, stage in pipeline["stages"].items():
        if "foreach" not in stage:
            stages[name] = stage
            continue
        items = stage["foreach"]
        if isinstance(items, str):  # "${variants}"
            items = settings[items[2:-1]]
        for key in items:
            text = json.dumps(stage["do"]).replace("${key}", key)
            item = items[key] if isinstance(items, Mapping) else key
            if isinstance(item, str):
                text = text.replace("${item}", item)
            stages[f"{name}@{key}"] = json.loads(text)
    return stages


def _stale(pipeline: Mapping[str, Any], lock: Lock, settings: Mapping[str, Any]) -> Iterator[str]:
    """In what a lock is not that of its pipeline and settings."""
    for name, stage in pipeline.items():
        if name not in lock.stages:
            yield f"has no stage {name}"
            continue
        locked = lock.stages[name]
        outputs = [*stage.get("outs", ()), *stage.get("metrics", ())]
        expected = {
            "cmd": stage["cmd"],
            "deps": set(stage.get("deps", ())),
            "outs": {next(iter(out)) if isinstance(out, dict) else out for out in outputs},
            "params": {key: _setting(settings, key) for key in stage.get("params", ())},
        }
        actual = {
            "cmd": locked.cmd,
            "deps": {entry.path for entry in locked.deps},
            "outs": {entry.path for entry in locked.outs},
            "params": locked.params.get("params.yaml", {}),
        }
        for part, value in expected.items():
            if actual[part] != value:
                source = "params.yaml has" if part == "params" else "dvc.yaml has"
                yield f"{name}: its {part} are not those that {source}"


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _altered(
    root: Path, tracked: Sequence[str], stages: Mapping[str, Stage]
) -> Iterator[tuple[str, str]]:
    """Files and folders that are not what the lock says, and results that it does not know."""
    outputs = {entry.path: entry for stage in stages.values() for entry in stage.outs}
    cached = {path: entry for path, entry in outputs.items() if not _under(path, tracked)}

    @cache
    def expected(path: str) -> Entry | None:
        """What the lock must say of a path; None if nothing here tells. An empty md5 fits any."""
        if path in cached:
            return cached[path]
        parts = {name: _entry(root, name) for name in _under(path, tracked)}
        parts |= {name: cached[name] for name in _under(path, cached)}
        if path in parts or not parts:
            return parts.get(path)
        listing = [
            {"md5": part.md5, "relpath": name.removeprefix(f"{path}/")}
            for name, part in sorted(parts.items())
        ]
        known = all(part.nfiles is None for part in parts.values())
        digest = hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest()
        return Entry(
            path=path,
            hash="md5",
            md5=f"{digest}.dir" if known else "",
            size=sum(part.size for part in parts.values()),
            nfiles=sum(part.nfiles or 1 for part in parts.values()),
        )

    at_odds: dict[tuple[str, str], list[str]] = {}
    for name, stage in stages.items():
        for verb, entries in (("left", stage.outs), ("used", stage.deps)):
            for entry in entries:
                if not _fits(entry, expected(entry.path)):
                    at_odds.setdefault((entry.path, verb), []).append(name)
    for (path, verb), names in at_odds.items():
        who = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        yield path, f"is not what {who} {verb}, by the lock; {_cures(path, names)}"
    for path in _under("models", tracked) + _under("reports", tracked):
        if not _maker(path, stages):
            yield path, f"is no output of any stage; `git rm {path}` removes it"


def _fits(entry: Entry, expected: Entry | None) -> bool:
    if expected is None:
        return False
    return entry == expected or (
        not expected.md5 and entry.model_copy(update={"md5": ""}) == expected
    )


def _under(path: str, names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Of some names, the path's own and those in its folder."""
    return [name for name in names if name == path or name.startswith(f"{path}/")]


def _entry(root: Path, name: str) -> Entry:
    file = root / name
    content = file.read_bytes() if file.is_file() else b""
    digest = hashlib.md5(content).hexdigest()
    return Entry(path=name, hash="md5", md5=digest, size=len(content))


def _maker(path: str, stages: Mapping[str, Stage]) -> str:
    """The stage that a file or folder is an output of; empty, if there is none."""
    made = (n for n, s in stages.items() for out in s.outs if _under(out.path, [path]))
    return next(made, "")


def _contradictions(run: Run, stage: Stage) -> Iterator[str]:
    """What a record says that its settings and the files beside it do not."""
    record = run.record
    weights = record.outputs.get("weights")
    for name, digest in record.outputs.items():
        if name not in ("weights", WEIGHTS) and files.sha256(run.file(name)) != digest:
            yield f"{name} beside it is not the one that it tells of"
    if record.outputs.get(WEIGHTS, weights) != weights:
        yield f"its digests of weights and {WEIGHTS} differ"
    if run.rows and run.rows[-1].get("weights_sha256", weights) != weights:
        yield "its weights are not those of the last epoch in history.csv"
    settings = _settings(stage.params.get("params.yaml", {}), record.name)
    for name, value in run.settings.items():
        if name in settings and settings[name] != value:
            yield f"its {name} is {value}, that of params.yaml is {settings[name]}"


def _settings(params: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A run's settings, as far as the params of its stage tell them by the same names."""
    own_name = name.rpartition("/")[2].partition(".")[0]  # that of a fold is the variant's
    found: dict[str, Any] = {}
    for key, value in params.items():
        if key == "data":
            found |= {f"data.{part}": setting for part, setting in value.items()}
        elif isinstance(value, Mapping):  # of a variant, of all of them, or of a study
            own = value.get("models", value).get(own_name)
            found |= {k: v for k, v in value.items() if not isinstance(v, Mapping)}
            found |= own if isinstance(own, Mapping) else {}
    if "dataset" in found:
        found["data.dataset"] = found["dataset"]
    return found | {key: value for key, value in params.items() if value is not None}
