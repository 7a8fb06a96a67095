"""A run, read from its files."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import chain, takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs.record import Record, read

AGAIN = "run `dvc repro` (k_fold: `make k-fold`; a sweep: `refashion sweep NAME`) to make it again"

MEASURED = ("metrics.json", "per_class.csv", "predictions.csv", "calibration.csv")
"""Files that are made after the training, and so are not in the record."""

WEIGHTS = "weights.safetensors"

TRIALS = "trials.csv"
"""The table of all trials, which the run that sums a sweep up has."""

PREDICTIONS = ["index", "actual", "predicted", "confidence"]
"""Header of ``predictions.csv``: a row for each test image, with the names of both classes."""

Columns = dict[str, list[str]]
"""Cells of a table, by column."""

LOG = "training_log.json"
"""File name of the timings of a run in one folder."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The files of a training, or of several that are summed up, each read when it is needed."""

    folders: tuple[Path, ...]

    log_file: Path
    """Timings, device and versions (JSON); it may be missing."""

    title: str
    """Its name in messages."""

    commit: str | None = None
    """The commit that it was made from, where that is known."""

    def file(self, name: str) -> Path:
        """Path of one of its files; `UserError` if the run does not have it."""
        for folder in self.folders:
            if (folder / name).is_file():
                return folder / name
        raise UserError(f"{self.title}: its {name} is missing; {AGAIN}")

    def has(self, name: str) -> bool:
        """Whether the run has a file of this name."""
        return any((folder / name).is_file() for folder in self.folders)

    @property
    def files(self) -> list[Path]:
        """All its files, sorted by name."""
        names = {f.name for folder in self.folders for f in folder.glob("*.*") if f.is_file()}
        return [self.file(name) for name in sorted(names) if not name.startswith(".")]

    @cached_property
    def record(self) -> Record:
        """Its record; `UserError` if that is missing, damaged or of another layout."""
        try:
            if record := read(self.file("record.json").read_bytes()):
                return record
        except ValueError as error:
            raise UserError(f"{self.title}: record.json is damaged ({error}); {AGAIN}") from None
        commit = self.commit or "COMMIT"
        raise UserError(
            f"{self.title}: record.json has another layout than this code reads; the code of its "
            f"own commit does: `git worktree add ../{commit[:12]} {commit}`, and run the command "
            "there"
        )

    @property
    def name(self) -> str:
        """The variant's, or ``STUDY/NAME``."""
        return self.record.name

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the training and the data, by their names in ``params.yaml``."""
        return self.record.settings

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The history, one row an epoch, as text."""
        return self.table("history.csv")

    @cached_property
    def history(self) -> dict[str, list[float]]:
        """Columns of numbers by epoch, each up to its first empty cell; empty ones are left out."""
        columns = {
            name: [float(row[name]) for row in takewhile(itemgetter(name), self.rows)]
            for name in (self.rows[0] if self.rows else ())
            if name != "weights_sha256"
        }
        return {name: column for name, column in columns.items() if column}

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Content of ``metrics.json``."""
        return files.read_json(self.file("metrics.json"), AGAIN)

    @cached_property
    def predictions(self) -> Columns:
        """Columns of the predictions for the test set; `UserError` if the file has another form."""
        rows = self.table("predictions.csv")
        if not rows or any([*row] != PREDICTIONS or None in row.values() for row in rows):
            raise UserError(
                f"{self.file('predictions.csv')}: not rows of {','.join(PREDICTIONS)}; {AGAIN}"
            )
        return {name: [row[name] for row in rows] for name in PREDICTIONS}

    @cached_property
    def log(self) -> dict[str, Any] | None:
        """Timings and hardware; None if they are missing or of another training."""
        if not self.log_file.is_file():
            return None
        log = files.read_json(self.log_file, "delete it")
        return log if log.get("weights") == self.record.outputs["weights"] else None

    @property
    def measured(self) -> str:
        """SHA-256 of the files that were made after the training."""
        digests = [files.sha256(self.file(name)) for name in MEASURED if self.has(name)]
        return sha256(bytes.fromhex("".join(digests))).hexdigest()

    def refuse_altered(self) -> None:
        """Raise `UserError` if a file of the training is not the one that the record tells of."""
        for name in self.altered(self.record.files):
            raise UserError(
                f"{self.title}: its {name} is not the one that record.json tells of; {AGAIN}"
            )

    def altered(self, names: Iterable[str]) -> Iterator[str]:
        """Of some files of the training, those that are not the ones that the record tells of."""
        for name in names:
            sha256_of = digest_of_weights if name == WEIGHTS else files.sha256
            if sha256_of(self.file(name)) != self.record.outputs[name]:
                yield name

    def table(self, name: str) -> list[dict[str, str]]:
        """Rows of one of its CSV files."""
        with self.file(name).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def digest_of_weights(file: Path) -> str:
    """Digest of the weights in a file; empty if it holds none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from refashion.training import digest

    try:
        return digest.weights(load_file(file))
    except (SafetensorError, ValueError, TypeError, KeyError):
        return ""


def in_folder(folder: Path, title: str, commit: str | None = None) -> Run:
    """A run whose files, the timings too, lie in one folder."""
    return Run(folders=(folder,), log_file=folder / LOG, title=title, commit=commit)


def in_checkout(checkout: Workspace, record: Record) -> Run:
    """The run of a record, in a checkout."""
    return Run(
        folders=tuple(checkout.root / folder for folder in record.folders),
        log_file=checkout.log_file(record.name),
        title=record.name,
    )


def write_together(
    path: Path, runs: Mapping[str, Run], table: str, columns: Sequence[str] = ()
) -> None:
    """Write one table of all runs, given by name, for DVC's plots; by default all its columns."""
    rows = {name: run.table(table) for name, run in runs.items()}
    header = list(columns or dict.fromkeys(chain.from_iterable(chain(*rows.values()))))
    cells = [[name, *(row.get(c, "") for c in header)] for name in rows for row in rows[name]]
    files.write_csv(path, ["run", *header], cells)
