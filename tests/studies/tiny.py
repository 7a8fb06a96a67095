"""Every study at its smallest, for tests of what is done with the results of studies."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refashion.base import paths
from refashion.base.params.studies import (
    HouseModelParams,
    HousePricesParams,
    InitialisationParams,
    WeightDecayParams,
)
from refashion.data.prepared import Split
from refashion.studies import arm
from refashion.studies.arm import Arm
from refashion.training.settings import Settings

DECAY = WeightDecayParams(
    **{"weight_decays": (0.0, 3.0), "train": 6, "test": 8, "inputs": 10, "lr": 0.003},
    **{"batch_size": 3, "epochs": 3, "seeds": 2},
)
HOUSES = HousePricesParams(
    dataset="made_up",
    folds=2,
    batch_size=64,
    models={
        "linear": HouseModelParams(hidden=(), optimizer="sgd", lr=0.1, epochs=2),
        "mlp": HouseModelParams(hidden=(4,), optimizer="adam", lr=0.1, epochs=3, log_price=True),
    },
)
STARTS = InitialisationParams(depths=2, width=8, images=64, lr=0.1, batch_size=32, epochs=1)
SOFTMAX = Settings(
    **{"hidden": (), "dropout": (), "lr": 0.1, "seed": 0, "epochs": 1, "batch_size": 16},
    **{"weight_decay": 0.0, "momentum": 0.0, "numerics": "portable"},
)
VARIANTS = {"softmax": SOFTMAX, "mlp": replace(SOFTMAX, hidden=(4,), dropout=(0.0,))}


def images(n: int = 64) -> Split:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (n, 784), dtype=np.uint8)
    return Split(images=pixels, labels=(np.arange(n) % 10).astype(np.uint8))


def save(root: Path, study: str, arms: Sequence[Arm]) -> None:
    """Leave a study's files in a checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "STUDIES", root / "reports" / "studies")
        patch.setattr(paths, "LOGS", root / "logs")
        arm.save(study, arms)
