"""What the pipeline has left of one variant, or of one arm of a study, in any checkout."""

import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

from refashion import studies
from refashion.base import params, paths
from refashion.base.errors import UserError
from refashion.studies import history


@dataclass(frozen=True, kw_only=True)
class Results:
    """The results of one variant. Each is read from its file when it is first asked for."""

    root: Path
    """The checkout."""

    variant: str
    """Name of the variant; of an arm, ``STUDY/ARM``."""

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment that it belongs to."""
        return self.data.dataset

    @property
    def stage(self) -> str:
        """The last stage that makes it, for DVC."""
        return f"evaluate@{self.variant}"

    @property
    def source(self) -> str:
        """The script that trains it."""
        return "stages/train.py"

    @property
    def parent(self) -> str | None:
        """The arm that sums this one up with others."""
        return None

    @property
    def weights(self) -> Path | None:
        """Where the running checkout has its weights; None: they are not kept."""
        return paths.weights(self.variant)

    @property
    def log_path(self) -> Path:
        """Where the running checkout has its timings, like the following."""
        return paths.training_log(self.variant)

    @property
    def training_files(self) -> tuple[Path, ...]:
        """What the training left."""
        of = (paths.record, paths.weights, paths.history)
        return tuple(path(self.variant) for path in of)

    @property
    def evaluation_files(self) -> tuple[Path, ...]:
        """What the evaluation left."""
        of = (paths.metrics, paths.predictions, paths.calibration)
        return tuple(path(self.variant) for path in of)

    @property
    def answers(self) -> tuple[Path, ...]:
        """Files that tell of every test example."""
        return (paths.predictions(self.variant), paths.calibration(self.variant))

    @property
    def cached(self) -> tuple[Path, ...]:
        """Those of its files that DVC keeps, not git."""
        return (paths.weights(self.variant), paths.predictions(self.variant))

    def at(self, root: Path) -> "Results":
        """The same of another checkout."""
        return Results(root=root, variant=self.variant)

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
    def settings(self) -> dict[str, Any]:
        """All settings that determined it, by the names that MLflow shows."""
        return {**self.record["params"], **{f"data.{name}": value for name, value in self.data}}

    @cached_property
    def images(self) -> dict[str, int]:
        """Number of images in each split that has any."""
        summary = self._json(paths.DATA_SUMMARY)
        counts = {name: summary[name]["images"] for name in ("train", "validation", "test")}
        return {name: n for name, n in counts.items() if n}

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The history, a row an epoch, as text."""
        return self._rows(paths.history(self.variant))

    @property
    def history_digest(self) -> str:
        """SHA-256 of the history, as the record has it."""
        return sha256(self.file(paths.history(self.variant)).read_bytes()).hexdigest()

    @cached_property
    def history(self) -> dict[str, list[float]]:
        """Columns of numbers by epoch, to the first that is empty; without those that are."""
        every = self.rows[0] if self.rows else ()
        names = [name for name in every if name not in ("arm", "weights_sha256")]
        columns = {
            name: [float(row[name]) for row in takewhile(itemgetter(name), self.rows)]
            for name in names
        }
        return {name: column for name, column in columns.items() if column}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Metrics on the test set; or those that a study asks for."""
        return self._json(paths.metrics(self.variant))

    @property
    def final_metrics(self) -> dict[str, float]:
        """Metrics of the whole training; of a class the F1 score alone (``test_f1/Ankle_boot``)."""
        values = {f"test_{k}": v for k, v in self.metrics.items() if k != "per_class"}
        # MLflow draws a chart of every metric, those with a slash first: more than one of each
        # class would bury the learning curves. The others are in metrics.json.
        for name, metrics in self.metrics["per_class"].items():
            values["test_f1/" + re.sub(r"[^\w.-]+", "_", name)] = metrics["f1"]
        return values

    @cached_property
    def predictions(self) -> dict[str, list[str]]:
        """Columns of the predictions on the test set."""
        return self._columns(paths.predictions(self.variant))

    @cached_property
    def log(self) -> dict[str, Any] | None:
        """Timings and hardware, if this checkout has those of the very training."""
        log = self._log()
        same = log.get("weights") == self.record["outputs"]["weights"]
        return log if same else None

    @cached_property
    def outputs_digest(self) -> str:
        """SHA-256 of what the training came to."""
        return sha256(json.dumps(self.record["outputs"], sort_keys=True).encode()).hexdigest()

    @cached_property
    def evaluation_digest(self) -> str:
        """SHA-256 of what the evaluation came to."""
        parts = [sha256(self.file(f).read_bytes()).digest() for f in self.evaluation_files]
        return sha256(b"".join(parts)).hexdigest()

    def _log(self) -> dict[str, Any]:
        return self._json(self.log_path) if self.has(self.log_path) else {}

    def _here(self, path: Path) -> Path:
        return self.root / path.relative_to(paths.ROOT)

    def _missing(self, file: Path) -> str:
        return f"{file}: missing; run `dvc repro` to make and publish it"

    def _json(self, path: Path) -> Any:
        return json.loads(self.file(path).read_text(encoding="utf-8"))

    def _rows(self, path: Path) -> list[dict[str, str]]:
        with self.file(path).open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def _columns(self, path: Path) -> dict[str, list[str]]:
        rows = self._rows(path)
        return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


@dataclass(frozen=True, kw_only=True)
class ArmResults(Results):
    """The results of one arm of a study, out of the study's files."""

    @property
    def study(self) -> str:
        """Name of the study."""
        return self.variant.partition("/")[0]

    @property
    def arm(self) -> str:
        """Name of the arm in its study."""
        return self.variant.partition("/")[2]

    @property
    def experiment(self) -> str:
        """Every study has its own."""
        return self.study

    @property
    def stage(self) -> str:
        """The study's."""
        return stage(self.study)

    @property
    def source(self) -> str:
        """The study's."""
        return f"stages/{self.study}.py"

    @property
    def parent(self) -> str | None:
        """As the record has it."""
        parent = self.record.get("parent")
        return parent and f"{self.study}/{parent}"

    @property
    def weights(self) -> None:
        """The record has their digest."""

    @property
    def log_path(self) -> Path:
        """The study's."""
        return paths.training_log(self.study)

    @property
    def training_files(self) -> tuple[Path, ...]:
        """The study's record and history, and its gradients or submission if this arm has any."""
        own = (paths.study_record(self.study), paths.study_history(self.study))
        gradients = (paths.gradients(self.study),) if "gradients" in self.record["outputs"] else ()
        return (*own, *gradients, *self.cached)

    @property
    def evaluation_files(self) -> tuple[Path, ...]:
        """The study's metrics."""
        return (paths.study_metrics(self.study),)

    @property
    def answers(self) -> tuple[Path, ...]:
        """None."""
        return ()

    @property
    def cached(self) -> tuple[Path, ...]:
        """The submission, if this arm has it."""
        has = "submission" in self.record["outputs"]
        return (paths.submission(self.study),) if has else ()

    def at(self, root: Path) -> "ArmResults":
        """The same of another checkout."""
        return ArmResults(root=root, variant=self.variant)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What determined the trainings, and what came of them."""
        return self._own(self._json(paths.study_record(self.study)))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """As the record has them."""
        return self.record["params"]

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Its rows of the history, a row an epoch, as text."""
        rows = self._rows(paths.study_history(self.study))
        return [row for row in rows if row["arm"] == self.arm]

    @property
    def history_digest(self) -> str:
        """SHA-256 of its rows, as the record has it."""
        return history.digest(
            [{k: float(v) for k, v in row.items() if v and k != "arm"} for row in self.rows]
        )

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What the study asks for."""
        return self._own(self._json(paths.study_metrics(self.study)))

    @property
    def final_metrics(self) -> dict[str, float]:
        """Those that are not the last of the history."""
        return {name: value for name, value in self.metrics.items() if name not in self.history}

    @cached_property
    def evaluation_digest(self) -> str:
        """SHA-256 of its metrics."""
        return sha256(json.dumps(self.metrics, sort_keys=True).encode()).hexdigest()

    def _log(self) -> dict[str, Any]:
        return super()._log().get(self.arm, {})

    def _own(self, arms: dict[str, Any]) -> Any:
        return arms[self.arm]


def stage(study: str) -> str:
    """The stage of a study, as DVC finds it."""
    return f"stages/{study}/dvc.yaml:{study}" if study == studies.K_FOLD else study


def arms(root: Path, study: str) -> list[ArmResults]:
    """Every arm that a study has left in a checkout; none, if it has not run there.

    A parent comes before the arms that it sums up.
    """
    record = root / paths.study_record(study).relative_to(paths.ROOT)
    if not record.exists():
        return []
    found = json.loads(record.read_text(encoding="utf-8"))
    names = sorted(found, key=lambda name: ("parent" in found[name], name))
    return [ArmResults(root=root, variant=f"{study}/{name}") for name in names]


def everything(
    root: Path, variants: Iterable[str], of: Iterable[str] = studies.DEFAULT
) -> list[Results]:
    """Results of variants, and of the arms of studies, in a checkout."""
    of_variants = [Results(root=root, variant=variant) for variant in variants]
    return [*of_variants, *(found for study in of for found in arms(root, study))]
