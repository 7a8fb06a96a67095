"""The training of a variant: what it leaves, and what it refuses."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import tiny
from oracles import train
from refashion.base.errors import UserError
from refashion.base.params import Params
from refashion.data import prepared
from refashion.runs import listing
from refashion.studies import classifiers
from refashion.training import digest
from refashion.training.engine import Examples
from refashion.training.loop import Model
from refashion.training.settings import Settings

COLUMNS = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weight_norm"]


@pytest.mark.parametrize("watched", [10, 0])
def test_a_variants_run_is_its_training(tmp_path: Path, watched: int) -> None:
    workspace, params = tiny.write_data(tmp_path, 40, watched), tiny.params()
    classifiers.run(workspace, params, "dropout")
    run = listing.variant(workspace, "dropout")
    settings = Settings(hidden=(6,), dropout=(0.2,), lr=0.5, seed=5, epochs=2, batch_size=8)
    splits = {part: prepared.load(getattr(workspace, part)) for part in ("train", "validation")}
    examples = {part: Examples.of_images(s.images, s.labels) for part, s in splits.items()}
    (training,) = train(Model(settings=settings, **examples))
    assert run.record.params == settings.as_dict()
    assert run.record.data == params.data.model_dump()
    assert run.record.inputs == {part: prepared.digest(split) for part, split in splits.items()}
    assert run.record.folders == ("models/dropout", "reports/evaluation/dropout")
    assert run.record.stage == "evaluate@dropout" and run.record.experiment == params.data.dataset
    assert run.record.outputs["weights"] == training.digest
    assert digest.weights(load_file(run.file("weights.safetensors"))) == training.digest
    assert list(run.rows[0]) == ["epoch", *COLUMNS, "weights_sha256"]
    for cells, row in zip(run.rows, training.history, strict=True):
        assert cells["epoch"] == str(row.epoch) and cells["weights_sha256"] == row.weights_sha256
        for name in COLUMNS:
            unwatched = name.startswith("validation") and not watched
            assert cells[name] == ("" if unwatched else repr(getattr(row, name)))
    assert run.log is not None and run.log["device"] == "cpu"


def changed(**changes: object) -> Params:
    return tiny.params().model_copy(update=changes)


def test_the_learning_rate_of_all_variants_wins() -> None:
    assert classifiers.settings(changed(), "dropout").lr == 0.5
    assert classifiers.settings(changed(lr=0.25), "dropout").lr == 0.25


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'mpl' is not in params\.yaml; there are softmax, drop"):
        classifiers.run(tiny.write_data(tmp_path), changed(), "mpl")


def test_a_variant_that_diverges_leaves_nothing(tmp_path: Path) -> None:
    workspace = tiny.write_data(tmp_path)
    with pytest.raises(UserError, match=r"^dropout: diverged in epoch 1 .* below 1e\+38$"):
        classifiers.run(workspace, changed(lr=1e38), "dropout")
    assert not workspace.models.exists() and not workspace.logs.exists()
