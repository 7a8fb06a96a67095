"""A checkout of the project: every path in it, once."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refashion.base.params import Params


@dataclass(frozen=True, slots=True)
class Workspace:
    """A checkout, whose files have the same places as in any other."""

    root: Path

    commit: str | None = None
    """That was checked out here, where that is known."""

    @classmethod
    def here(cls) -> "Workspace":
        """The checkout whose code is running."""
        return cls(Path(__file__).resolve().parents[3])

    @property
    def main(self) -> Path:
        """The user's own checkout: another one in the temporary folder of a queued experiment."""
        return Path(os.environ.get("DVC_ROOT", self.root))

    @property
    def params_file(self) -> Path:
        """Every setting of the pipeline (YAML)."""
        return self.root / "params.yaml"

    def params(self) -> "Params":
        """Read and validate the settings; see `refashion.base.params.load`."""
        from refashion.base import params

        return params.load(self.params_file)

    @property
    def checked(self) -> Path:
        """Left when the settings have been validated; its content never changes."""
        return self.root / "data" / "checked"

    @property
    def raw(self) -> Path:
        """Official files of the data set."""
        return self.root / "data" / "raw"

    @property
    def train(self) -> Path:
        """Training images and labels."""
        return self.root / "data" / "prepared" / "train"

    @property
    def validation(self) -> Path:
        """Validation images and labels."""
        return self.root / "data" / "prepared" / "validation"

    @property
    def test(self) -> Path:
        """Test images and labels."""
        return self.root / "data" / "prepared" / "test"

    @property
    def houses(self) -> Path:
        """Tables of house prices."""
        return self.root / "data" / "houses"

    @property
    def models(self) -> Path:
        """What the trainings of the variants left, a folder each."""
        return self.root / "models"

    @property
    def reports(self) -> Path:
        """Everything measured."""
        return self.root / "reports"

    @property
    def data_summary(self) -> Path:
        """Number of images in every split, and their pixels (JSON)."""
        return self.reports / "data.json"

    @property
    def evaluation(self) -> Path:
        """What the evaluations of the variants left, a folder each."""
        return self.reports / "evaluation"

    @property
    def studies(self) -> Path:
        """What the studies left: a folder each, with a folder for every run."""
        return self.reports / "studies"

    @property
    def comparison(self) -> Path:
        """Accuracies with intervals, and tests of every pair of variants (JSON)."""
        return self.reports / "comparison.json"

    @property
    def logs(self) -> Path:
        """Timings, device and versions: everything that changes from run to run."""
        return self.root / "logs"

    @property
    def no_source(self) -> Path:
        """Why the official files could not be fetched."""
        return self.logs / "no-source.txt"

    def variant_folders(self, name: str) -> tuple[Path, Path]:
        """What the training of a variant left, and what its evaluation left."""
        return self.models / name, self.evaluation / name

    def study_folder(self, study: str) -> Path:
        """What a study left."""
        return self.studies / study

    def study_metrics(self, study: str) -> Path:
        """The one or two numbers of a study by which experiments are compared (JSON)."""
        return self.studies / f"{study}.json"

    def relative(self, path: Path) -> str:
        """A path of this checkout, as DVC and git name it."""
        return path.relative_to(self.root).as_posix()
