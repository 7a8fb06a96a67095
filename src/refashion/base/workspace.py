"""A checkout of the project: every path in it, once."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from refashion.base.errors import UserError

if TYPE_CHECKING:
    from refashion.base.params import Params


CODE = Path(__file__).resolve().parents[3]
"""The checkout whose code is running."""


class Workspace:
    """A checkout, whose files have the same places as in any other.

    Parameters
    ----------
    root : Path
        Folder of the checkout.
    commit : str, optional
        What is checked out there, where that is known.
    """

    def __init__(self, root: Path, commit: str | None = None) -> None:
        self.root, self.commit = root, commit
        self.params_file = root / "params.yaml"  # every setting of the pipeline

        data = root / "data"
        self.checked = data / "checked"  # written when the settings are legal, always the same
        self.raw = data / "raw"  # official files of the data set
        self.train = data / "prepared" / "train"  # images and labels of each split
        self.validation = data / "prepared" / "validation"
        self.test = data / "prepared" / "test"
        self.houses = data / "houses"  # tables of house prices

        self.models = root / "models"  # results of the trainings of variants, a folder each
        self.reports = root / "reports"  # everything measured
        self.data_summary = self.reports / "data.json"  # images of each split, and their pixels
        self.evaluation = self.reports / "evaluation"  # of the variants, a folder each
        self.studies = self.reports / "studies"  # a folder each, with a folder for each run
        self.comparison = self.reports / "comparison.json"  # accuracies, tests of pairs of variants

        self.trials = root / "build" / "trials"  # of sweeps, as far as they are trained
        self.logs = root / "logs"  # timings, device, versions: what changes from run to run
        self.checkpoints = root / "build" / "checkpoints"  # states of trainings under way
        self.no_source = self.logs / "no-source.txt"  # why official files could not be fetched

    @classmethod
    def here(cls) -> "Workspace":
        """The checkout that holds the working directory.

        Raises
        ------
        UserError
            If the working directory is in none.
        """
        folder = Path.cwd()
        for root in (folder, *folder.parents):
            if all((root / name).is_file() for name in ("dvc.yaml", "params.yaml")):
                return cls(root)
        raise UserError(
            f"{folder}: is in no checkout of this project (no dvc.yaml with a params.yaml beside "
            f"it, here or above); change to one, as with `cd {CODE}`"
        )

    @property
    def written(self) -> list[Path]:
        """Folders that stages write to."""
        made = [self.root / name for name in ("data", "models", "reports", "logs")]
        return [*made, self.trials, self.checkpoints]

    @property
    def main(self) -> Path:
        """The user's own checkout, where this is the copy of it that runs a queued experiment."""
        return Path(os.environ.get("DVC_ROOT") or self.root).absolute()

    def params(self) -> "Params":
        """Read and validate the settings; see `refashion.base.params.load`."""
        from refashion.base import params

        return params.load(self.params_file)

    def variant_folders(self, name: str) -> tuple[Path, Path]:
        """Folders of a variant's training and of its evaluation."""
        return self.models / name, self.evaluation / name

    def study_folder(self, study: str) -> Path:
        """Folder of a study."""
        return self.studies / study

    def study_metrics(self, study: str) -> Path:
        """The one or two numbers of a study by which experiments are compared (JSON)."""
        return self.studies / f"{study}.json"

    def log_file(self, name: str) -> Path:
        """Timings, device and versions of the run of a name (JSON)."""
        return self.logs / f"{name}.json"

    def relative(self, path: Path) -> str:
        """A path of this checkout, as DVC and git name it."""
        return path.relative_to(self.root).as_posix()
