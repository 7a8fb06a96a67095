"""Validation on folds: the study at a small size, recomputed from what it trained."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from refashion.base.errors import UserError
from refashion.data import prepared, splits
from refashion.data.prepared import Split
from refashion.studies import k_fold
from refashion.studies.arm import Arm
from refashion.training import digest, loop
from refashion.training.settings import Settings

K, SEED = 3, 4
MEASURES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "weight_norm")
SOFTMAX = Settings(
    hidden=(),
    dropout=(),
    lr=0.1,
    seed=0,
    epochs=2,
    batch_size=8,
    weight_decay=0.0,
    momentum=0.0,
    numerics="portable",
)
VARIANTS = {"softmax": SOFTMAX, "dropout": replace(SOFTMAX, hidden=(6,), dropout=(0.2,), lr=0.5)}


def split(first: int, last: int) -> Split:
    """Images whose first pixel is their number."""
    numbers = np.arange(first, last, dtype=np.uint8)
    rng = np.random.default_rng(first)
    images = rng.integers(0, 128, (last - first, 784), dtype=np.uint8)
    images[np.arange(784) // 78 == (numbers % 10)[:, None]] += 100
    images[:, 0] = numbers
    return Split(images=images, labels=numbers % 10)


PARTS = [split(0, 40), split(40, 50)]
KNOWN = Split(
    images=np.concatenate([part.images for part in PARTS]),
    labels=np.concatenate([part.labels for part in PARTS]),
)


def run(k: int = K, seed: int = SEED, parts: list[Split] = PARTS) -> list[Arm]:
    return k_fold.run(k, VARIANTS, parts, seed, "cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for one another take many times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def arms() -> list[Arm]:
    return run()


def alone(settings: Settings, held_out: np.ndarray) -> loop.Training:
    kept = np.setdiff1d(np.arange(50), held_out)
    train, watched = (
        Split(images=KNOWN.images[chosen], labels=KNOWN.labels[chosen])
        for chosen in (kept, held_out)
    )
    return loop.train(settings, train, watched, device="cpu")


def test_arms_are_the_variants_each_followed_by_its_folds(arms: list[Arm]) -> None:
    assert [(arm.name, arm.parent) for arm in arms] == [
        (name, parent)
        for variant in VARIANTS
        for name, parent in [
            (variant, None),
            *((f"{variant}.fold_{fold}", variant) for fold in (1, 2, 3)),
        ]
    ]


def test_params_are_those_of_the_trainings(arms: list[Arm]) -> None:
    for arm in arms:
        expected = {**VARIANTS[arm.parent or arm.name].as_dict(), "folds": K, "folds_seed": SEED}
        if arm.parent:
            expected["fold"] = int(arm.name[-1])
        assert arm.params == expected
        assert arm.inputs == {"known": prepared.digest(KNOWN)}


def test_each_fold_is_held_out_once_and_learnt_otherwise() -> None:
    with mock.patch.object(loop, "train_together", wraps=loop.train_together) as spy:
        run()
    folds = splits.folds(KNOWN.labels, K, SEED)
    assert spy.call_count == K * len(VARIANTS)
    for i, call in enumerate(spy.call_args_list):
        (settings,), (pair,) = call.args
        train, watched = (set(part.images[:, 0].tolist()) for part in pair)
        assert settings == list(VARIANTS.values())[i // K]
        assert watched == set(folds[i % K].tolist())
        assert not train & watched and train | watched == set(range(50))
        for part in pair:
            assert np.array_equal(part.labels, part.images[:, 0] % 10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_training_is_the_one_it_would_be_alone(arms: list[Arm], variant: str) -> None:
    (whole,) = (arm for arm in arms if arm.name == variant)
    of_folds = [arm for arm in arms if arm.parent == variant]
    assert len({digest.weights(training.weights) for training in whole.trainings}) == K
    for i, held_out in enumerate(splits.folds(KNOWN.labels, K, SEED)):
        training = alone(VARIANTS[variant], held_out)
        for found in (whole.trainings[i], of_folds[i].trainings[0]):
            assert found.history == training.history
            assert digest.weights(found.weights) == digest.weights(training.weights)
        assert len(of_folds[i].trainings) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_metrics_are_means_and_spreads_of_the_folds(arms: list[Arm], variant: str) -> None:
    (whole,) = (arm for arm in arms if arm.name == variant)
    of_folds = [arm for arm in arms if arm.parent == variant]
    assert whole.metrics["folds"] == K
    for name in MEASURES:
        values = [getattr(training.history[-1], name) for training in whole.trainings]
        assert [arm.metrics[name] for arm in of_folds] == values
        assert whole.metrics[name] == pytest.approx(statistics.mean(values), rel=1e-14)
        assert whole.metrics[f"{name}_deviation"] == statistics.stdev(values)
        for epoch, row in enumerate(whole.history):
            values = [getattr(training.history[epoch], name) for training in whole.trainings]
            assert row[name] == pytest.approx(statistics.mean(values), rel=1e-14)
            assert [arm.history[epoch][name] for arm in of_folds] == values
    assert len(whole.history) == 2


def test_the_mean_accuracy_is_that_of_all_images() -> None:
    """With folds of one size, since every image is asked about once."""
    arms = run(k=5)
    folds = splits.folds(KNOWN.labels, 5, SEED)
    assert {len(fold) for fold in folds} == {10}
    for variant in VARIANTS:
        (whole,) = (arm for arm in arms if arm.name == variant)
        right = 0
        for training, fold in zip(whole.trainings, folds, strict=True):
            h = torch.from_numpy(KNOWN.images[fold]).double() / 255
            layers = len(training.weights) // 2
            for i in range(layers):
                weight, bias = (training.weights[f"layers.{i}.{x}"] for x in ("weight", "bias"))
                h = h @ weight.double() + bias.double()
                h = torch.relu(h) if i < layers - 1 else h
            right += int((h.argmax(1).numpy() == KNOWN.labels[fold]).sum())
        assert whole.metrics["validation_accuracy"] == pytest.approx(right / 50)


def test_parts_do_not_matter_but_the_seed_does(arms: list[Arm]) -> None:
    """The images are dealt out anew, wherever the validation set had been cut."""

    def digests(found: list[Arm]) -> list[str]:
        return [digest.weights(t.weights) for arm in found for t in arm.trainings]

    assert digests(run(parts=[KNOWN])) == digests(arms)
    assert not set(digests(run(seed=SEED + 1))) & set(digests(arms))


def test_an_empty_part() -> None:
    nothing = Split(images=KNOWN.images[:0], labels=KNOWN.labels[:0])
    (arm, *_) = k_fold.run(2, {"softmax": SOFTMAX}, [KNOWN, nothing], SEED, "cpu")
    assert arm.inputs == {"known": prepared.digest(KNOWN)}


def test_more_folds_than_images() -> None:
    few = Split(images=KNOWN.images[:4], labels=KNOWN.labels[:4])
    with pytest.raises(UserError, match=r"^folds: 5 is more than the 4 examples"):
        k_fold.run(5, VARIANTS, [few], 0, "cpu")
