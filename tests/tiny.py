"""Studies at their smallest, each in a workspace of its own, with what was trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

from refashion.base import files
from refashion.base.params import Params, VariantParams
from refashion.base.params.studies import HouseModelParams, StudiesParams
from refashion.base.workspace import Workspace
from refashion.data import prepared, synthetic
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.studies import study
from refashion.studies.study import Headline, Measures, Trained
from refashion.training.loop import Training
from refashion.training.settings import Settings

STUDIES: dict[str, dict[str, Any]] = {
    "weight_decay": {"train": 12, "test": 20, "inputs": 30, "epochs": 4, "seeds": 3},
    "house_prices": {
        "dataset": "synthetic",
        "folds": 3,
        "batch_size": 32,
        "models": {
            "linear": HouseModelParams(
                hidden=(), optimizer="sgd", lr=0.1, epochs=4, weight_decay=0.01
            ),
            "mlp": HouseModelParams(
                hidden=(5,), optimizer="adam", lr=0.1, epochs=4, log_price=True
            ),
        },
    },
    "initialisation": {"depths": 3, "width": 8, "images": 40, "batch_size": 16, "epochs": 2},
    "k_fold": {"folds": 3},
}
VARIANTS = {
    "softmax": VariantParams(hidden=(), lr=0.1),
    "dropout": VariantParams(hidden=(6,), dropout=(0.2,), lr=0.5),
}


def params(study: str = "k_fold", /, *, numerics: str = "portable", **changes: Any) -> Params:
    """Those of params.yaml with all studies at their smallest, and changes to one of them."""
    known = Workspace(Path(__file__).resolve().parents[1]).params()
    studies = {
        name: getattr(known.studies, name).model_copy(
            update=STUDIES[name] | (changes if name == study else {})
        )
        for name in StudiesParams.model_fields
    }
    small = {"seed": 5, "epochs": 2, "batch_size": 8, "device": "cpu", "numerics": numerics}
    new = {"variants": VARIANTS, "studies": StudiesParams(**studies), "sweeps": {}}
    return known.model_copy(update=small | new)


def write_data(root: Path, train: int = 40, validation: int = 10, test: int = 0) -> Workspace:
    """Write tables of houses, and images whose first pixel is their number."""
    workspace = Workspace(root)
    for name, content in synthetic.houses().items():
        files.write_text(workspace.houses / name, content.decode())
    n = train + validation + test
    images = np.random.default_rng(0).integers(0, 128, (n, 784), dtype=np.uint8)
    labels = np.arange(n, dtype=np.uint8) % 10
    images[np.arange(784) // 78 == labels[:, None]] += 100  # bright pixels betray the label
    images[:, 0] = np.arange(n)
    for folder, rows in (
        (workspace.train, slice(0, train)),
        (workspace.validation, slice(train, train + validation)),
        (workspace.test, slice(train + validation, n)),
    ):
        prepared.save(folder, images[rows], labels[rows])
    return workspace


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a study has left."""

    workspace: Workspace
    headline: Headline
    runs: dict[str, Run]
    """In the order in which they were written."""
    trainings: dict[str, list[Training]]
    """What each run consists of."""


def run(module: ModuleType, workspace: Workspace, params: Params) -> Result:
    """Run a study, and keep what it trained besides what it writes."""
    with mock.patch.object(study, "write_run", wraps=study.write_run) as written:
        headline = module.run(workspace, params)
    trainings = {
        call.args[1].partition("/")[2]: [trained.training for trained in call.args[2]]
        for call in written.call_args_list
    }
    runs = {run.title: run for run in listing.of_study(workspace, module.NAME)}
    by_name = {name: runs[f"{module.NAME}/{name}"] for name in trainings}
    return Result(workspace=workspace, headline=headline, runs=by_name, trainings=trainings)


def observed(*rows: Sequence[Measures]) -> list[Trained]:
    """Trained models of which nothing is known but what was observed."""
    training = Training(settings=Settings(), weights={}, history=[])
    rest: dict[str, Any] = {"contract": "", "seconds": (), "num_examples": 0, "machine": {}}
    return [Trained(training=training, rows=of_model, **rest) for of_model in rows]
