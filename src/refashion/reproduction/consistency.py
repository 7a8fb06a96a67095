"""Whether what is committed fits together: in seconds, without data, training or DVC's cache."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import lockfile, revisions
from refashion.runs.run import WEIGHTS, Run, in_folder

if TYPE_CHECKING:
    from dvc.stage import PipelineStage as Stage

Fault = tuple[str, str]
"""A file, and what is wrong with it."""


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
    text = "\n".join(lines) + "\n"
    return text.encode(errors="backslashreplace").decode()  # names of files may be no text


def check(workspace: Workspace) -> Iterator[Check]:
    """Compare files in git, ``dvc.lock``, ``dvc.yaml``, ``params.yaml`` and records.

    Of what is not in git, the lock's own digests are compared: an output's with those of the deps
    that it is, or that it is part of. That of a folder of such folders is beyond this check.

    Yields one check that does not hold for every file at fault, with what is wrong and what to do;
    or one that holds. `UserError` if the workspace is not in git, or DVC cannot read its pipeline,
    locks or ``params.yaml``.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage import PipelineStage

    root = workspace.root
    tracked = os.fsdecode(revisions.git("ls-files", "-z", folder=root)).split("\0")[:-1]
    try:
        with Repo(str(root)) as repo:
            named = [s for s in repo.index.stages if isinstance(s, PipelineStage)]
            stages = {f"{s.path_in_repo}:{s.name}": s for s in named}
            faults = list(_stale(root, stages))
    except DvcException as error:
        raise UserError(f"{' '.join(str(error).split())}; mend that first") from None
    faults += _altered(root, tracked, stages)
    for name in _under("models", tracked) + _under("reports", tracked):
        makers = [a for a, s in stages.items() for out in s.outs if _under(_path(out), [name])]
        if not makers:
            faults.append((name, f"is no output of any stage; `git rm {name}` removes it"))
        elif name.endswith("/record.json"):
            run = in_folder((root / name).parent, name.removesuffix("/record.json"))
            try:
                texts = list(_contradictions(run, stages[makers[0]]))
            except (UserError, ValueError) as error:
                texts = [str(error)]
            cure = f"`dvc repro --force {makers[0]}` makes it anew"
            faults += [(name, f"{text}; {cure}") for text in texts]
    for name, fault in faults:
        yield Check(name=f"consistent: {name}", holds=False, detail=fault)
    if not faults:
        detail = f"{len(stages)} stages fit {len(tracked)} files in git"
        yield Check(name="consistent", holds=True, detail=detail)


def _path(item: Any) -> str:
    """Path of a dep or an output of DVC, relative to the root."""
    return Path(os.path.relpath(item.fs_path, item.repo.root_dir)).as_posix()


def _under(path: str, names: Iterable[str]) -> list[str]:
    """Of some names, the path's own and those in its folder."""
    return [name for name in names if name == path or name.startswith(f"{path}/")]


def _stale(root: Path, stages: Mapping[str, "Stage"]) -> Iterator[Fault]:
    """Locks that are not those of their pipelines and settings."""
    pipelines = dict.fromkeys(stage.path_in_repo for stage in stages.values())
    locks = {file: lockfile.read((root / file).with_suffix(".lock")) for file in pipelines}
    locked = [f"{file}:{name}" for file, lock in locks.items() for name in lock]
    for address in dict.fromkeys([*locked, *stages]):
        file, _, name = address.partition(":")
        if address not in stages:
            fault = f"has the stage {name}, {file} has not; delete it there"
        elif address not in locked:
            fault = f"has no stage {name}; run `dvc repro {file}`"
        elif stages[address].cmd_changed:
            fault = f"{name}: its cmd is not that of {file}; run `dvc repro {file}`"
        elif any(dep.status() for dep in stages[address].params):
            fault = f"{name}: its params are not those of params.yaml; run `dvc repro {file}`"
        else:
            continue
        yield file.replace(".yaml", ".lock"), fault


def _altered(root: Path, tracked: Sequence[str], stages: Mapping[str, "Stage"]) -> Iterator[Fault]:
    """Files and folders that are not what the lock says."""
    entries = [
        (_path(item), verb, address, item.hash_info.value)
        for address, stage in stages.items()
        for verb, items in (("left", stage.outs), ("used", stage.deps))
        for item in items
        if item not in stage.params and any(dep.hash_info for dep in stage.deps)
    ]
    outs = {path: digest for path, verb, _, digest in entries if verb == "left" and digest}
    known = {path: digest for path, digest in outs.items() if not _under(path, tracked)}
    present = [name for name in tracked if (root / name).is_file()]
    known |= {name: md5((root / name).read_bytes()).hexdigest() for name in present}
    at_odds = defaultdict(list)
    for path, verb, address, digest in entries:
        if not digest or _digest(path, known) not in (None, digest):
            at_odds[path, verb].append(address)
    for (path, verb), those in at_odds.items():
        who = those[0] + (f" and {len(those) - 1} more" if those[1:] else "")
        pipelines = " ".join(sorted({address.partition(":")[0] for address in those}))
        cure = (
            f"`git checkout HEAD -- {path}` if it was changed in error, or `dvc repro {pipelines}`"
        )
        yield path, f"is not what {who} {verb}, by the lock; {cure}"


def _digest(path: str, known: Mapping[str, str]) -> str | None:
    """MD5 of a file, or of the listing of a folder; None if that has folders of unknown files."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    if path in known:
        return known[path]
    listing = Tree()
    for name in _under(path, known):
        if known[name].endswith(".dir"):
            return None
        parts = PurePosixPath(name).relative_to(path).parts
        listing.add(parts, None, HashInfo("md5", known[name]))
    listing.digest()
    return listing.hash_info.value


def _contradictions(run: Run, stage: "Stage") -> Iterator[str]:
    """What a record says that the files beside it and the settings of its stage do not."""
    record = run.record
    for name in run.altered(name for name in record.files if name != WEIGHTS):  # those in git
        yield f"{name} beside it is not the one that it tells of"
    weights = record.outputs.get("weights")
    if run.rows and run.rows[-1].get("weights_sha256", weights) != weights:
        yield "its weights are not those of the last epoch in history.csv"
    settings = {k: v for dep in stage.params for k, v in dep.hash_info.value.items()}
    sections = [value for value in settings.values() if isinstance(value, Mapping)]
    name = record.name.rpartition("/")[2].partition(".")[0]  # that of a fold is the variant's
    own = [section.get("models", section).get(name) for section in sections]
    known: dict[str, Any] = {}
    for part in (*sections, *own, settings):
        if isinstance(part, Mapping):
            known |= {k: v for k, v in part.items() if not isinstance(v, Mapping | None)}
    swept = {key for section in sections for key in section.get("space", ())}
    swept |= {"epochs"} if known.get("search") == "halving" else set()
    for name, value in record.params.items():
        if name not in swept and known.get(name, value) != value:
            yield f"its {name} is {value}, that of params.yaml is {known[name]}"
