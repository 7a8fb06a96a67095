"""Validation on folds: the study at a small size, recomputed from what it trained."""

from pathlib import Path
from unittest import mock

import pytest
import torch

import tiny
from refashion.data import prepared, splits
from refashion.data.prepared import Split
from refashion.studies import k_fold, study
from refashion.studies.classifiers import settings
from refashion.training.engine import Reader

PARAMS = tiny.params()
SEED = PARAMS.data.seed


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tiny.Result:
    return tiny.run(k_fold, tiny.write_data(tmp_path_factory.mktemp("k_fold")), PARAMS)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """All 50 images, which the others divide into training and validation."""
    return prepared.load(tiny.write_data(tmp_path_factory.mktemp("images"), 50, 0).train)


def test_a_run_of_every_variant_sums_up_those_of_its_folds(
    result: tiny.Result, split: Split
) -> None:
    parts = ("", ".fold_1", ".fold_2", ".fold_3")
    assert list(result.runs) == [name + part for name in ("softmax", "dropout") for part in parts]
    for name, run in result.runs.items():
        variant, _, fold = name.partition(".fold_")
        assert run.record.parent == (f"k_fold/{variant}" if fold else None)
        about = {"folds": 3, "folds_seed": SEED} | ({"fold": int(fold)} if fold else {})
        assert run.record.params == {**settings(PARAMS, variant).as_dict(), **about}
        assert run.record.inputs == {"known": prepared.digest(split)}
        assert run.record.stage == "stages/k_fold/dvc.yaml:k_fold"


def test_each_fold_is_held_out_once_and_learnt_otherwise(split: Split, tmp_path: Path) -> None:
    with mock.patch.object(study, "train", wraps=study.train) as trained:
        k_fold.run(tiny.write_data(tmp_path), PARAMS)
    folds = splits.folds(split.labels, 3, SEED)
    assert trained.call_count == 2
    for i, model in enumerate(m for call in trained.call_args_list for m in call.args[1]):
        assert model.settings == settings(PARAMS, ["softmax", "dropout"][i // 3])
        parts = [(part, Reader(part)[0 : len(part)]) for part in (model.train, model.validation)]
        train, held_out = (set(inputs[:, 0].tolist()) for _, inputs in parts)
        assert held_out == set(folds[i % 3].tolist())
        assert not train & held_out and train | held_out == set(range(50))
        for part, inputs in parts:
            assert torch.equal(part.targets, inputs[:, 0].long() % 10)
    pixels = {m.train.inputs.data_ptr() for call in trained.call_args_list for m in call.args[1]}
    assert len(pixels) == 1  # the images are in memory once


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_every_training_is_a_run(result: tiny.Result, variant: str) -> None:
    whole, *folds = (run for name, run in result.runs.items() if name.startswith(variant))
    digests = [training.digest for training in result.trainings[variant]]
    assert [run.record.outputs["weights"] for run in folds] == digests
    assert len(set(digests)) == whole.metrics["folds"] == 3
    assert result.headline["validation_accuracy"][variant] == whole.metrics["validation_accuracy"]


def test_the_cut_of_the_validation_set_does_not_matter_but_the_seed_does(
    result: tiny.Result, tmp_path: Path
) -> None:
    """The images are dealt out anew; the validation set may be empty."""
    one_part = tiny.write_data(tmp_path, 50, 0)
    data = PARAMS.data.model_copy(update={"seed": SEED + 1})
    again = tiny.run(k_fold, one_part, PARAMS)
    other = tiny.run(k_fold, one_part, PARAMS.model_copy(update={"data": data}))
    digests = [
        {training.digest for of_run in study.trainings.values() for training in of_run}
        for study in (result, again, other)
    ]
    assert digests[0] == digests[1] and not digests[0] & digests[2]
    assert len(digests[0]) == 6
