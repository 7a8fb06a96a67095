"""What the pipeline has left of one variant, in any checkout."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from refashion import params, paths
from refashion.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of one variant. Each is read from its file when it is first asked for."""

    root: Path
    """The checkout."""

    variant: str
    """Name of the variant."""

    def file(self, path: Path) -> Path:
        """Path in this checkout of a file that `paths` names in the running one.

        Raises
        ------
        UserError
            If the file is not there.
        """
        here = self._here(path)
        if not here.exists():
            raise UserError(self._missing(here.relative_to(self.root)))
        return here

    def has(self, path: Path) -> bool:
        """Whether this checkout has a file that `paths` names in the running one."""
        return self._here(path).exists()

    @cached_property
    def record(self) -> dict[str, Any]:
        """What determined the training, and what came of it."""
        return self._json(paths.record(self.variant))

    @cached_property
    def data(self) -> params.DataParams:
        """The settings of the data."""
        return params.load(self.file(paths.PARAMS)).data

    @cached_property
    def images(self) -> dict[str, int]:
        """Number of images in each split that has any."""
        summary = self._json(paths.DATA_SUMMARY)
        counts = {name: summary[name]["images"] for name in ("train", "validation", "test")}
        return {name: n for name, n in counts.items() if n}

    @cached_property
    def history(self) -> dict[str, list[float]]:
        """Columns of numbers by epoch; none for a validation set that is empty."""
        columns = self._columns(paths.history(self.variant))
        del columns["weights_sha256"]
        return {name: list(map(float, column)) for name, column in columns.items() if all(column)}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the test set."""
        return self._json(paths.metrics(self.variant))

    @cached_property
    def predictions(self) -> dict[str, list[str]]:
        """Columns of the predictions on the test set."""
        return self._columns(paths.predictions(self.variant))

    @cached_property
    def log(self) -> dict[str, Any] | None:
        """Timings and hardware, if this checkout has those of the very training."""
        path = paths.training_log(self.variant)
        log = self._json(path) if self.has(path) else {}
        same = log.get("weights") == self.record["outputs"]["weights"]
        return log if same else None

    @cached_property
    def outputs_digest(self) -> str:
        """SHA-256 of what the training came to."""
        return sha256(json.dumps(self.record["outputs"], sort_keys=True).encode()).hexdigest()

    @cached_property
    def evaluation_digest(self) -> str:
        """SHA-256 of what the evaluation came to."""
        files = (paths.metrics, paths.predictions, paths.calibration)
        parts = [sha256(self.file(f(self.variant)).read_bytes()).digest() for f in files]
        return sha256(b"".join(parts)).hexdigest()

    def _here(self, path: Path) -> Path:
        return self.root / path.relative_to(paths.ROOT)

    def _missing(self, file: Path) -> str:
        return f"{file}: missing; run `dvc repro` to make and publish it"

    def _json(self, path: Path) -> Any:
        return json.loads(self.file(path).read_text(encoding="utf-8"))

    def _columns(self, path: Path) -> dict[str, list[str]]:
        with self.file(path).open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        columns = zip(*rows, strict=True) if rows else ((),) * len(header)
        return {name: list(column) for name, column in zip(header, columns, strict=True)}
