"""Weight decay: the study at a small size, recomputed from what it trained."""

import hashlib
import math
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from refashion.base.errors import UserError
from refashion.base.params.studies import WeightDecayParams
from refashion.studies import weight_decay
from refashion.studies.arm import Arm
from refashion.training import digest, loop
from refashion.training.initial import Weights
from refashion.training.settings import Settings

SMALL = WeightDecayParams(
    weight_decays=(0.0, 3.0),
    train=12,
    test=20,
    inputs=30,
    lr=0.003,
    batch_size=5,
    epochs=4,
    seeds=3,
)
SEED = 5
SETTINGS = Settings(
    hidden=(),
    dropout=(),
    lr=0.003,
    seed=SEED,
    epochs=4,
    batch_size=5,
    weight_decay=0.0,
    momentum=0.0,
    numerics="portable",
    num_inputs=30,
    num_outputs=1,
    initialisation="unit_normal",
    loss="squared",
)


def run(numerics: str = "portable", **changes: Any) -> list[Arm]:
    return weight_decay.run(SMALL.model_copy(update=changes), SEED, numerics, "cpu")


@pytest.fixture(scope="module")
def arms() -> list[Arm]:
    return run()


def predicted(weights: Weights, inputs: Tensor) -> Tensor:
    return inputs.double() @ weights["layers.0.weight"].double() + weights["layers.0.bias"]


def half_squares(weights: Weights, examples: Any) -> float:
    return float((predicted(weights, examples.inputs) - examples.targets).square().mean() / 2)


def test_arms_are_named_by_penalty(arms: list[Arm]) -> None:
    assert [arm.name for arm in arms] == ["decay_0", "decay_3"]
    assert [a.name for a in run(weight_decays=(0.25, 1e-5), epochs=1)] == [
        "decay_0.25",
        "decay_1e-05",
    ]


def test_params_are_those_of_the_trainings(arms: list[Arm]) -> None:
    for arm, penalty in zip(arms, SMALL.weight_decays, strict=True):
        assert arm.params == {
            **replace(SETTINGS, weight_decay=penalty).as_dict(),
            "seeds": 3,
            "num_train": 12,
            "num_test": 20,
        }
        assert arm.parent is None


def test_all_penalties_learn_the_same_examples(arms: list[Arm]) -> None:
    both = [weight_decay.draw(SMALL, SEED + i) for i in range(3)]
    digests = {}
    for i, name in enumerate(("train", "test")):
        sha = hashlib.sha256()
        for examples in both:
            sha.update(examples[i].inputs.numpy().tobytes())
            sha.update(examples[i].targets.numpy().tobytes())
        digests[name] = sha.hexdigest()
    assert [arm.inputs for arm in arms] == [digests, digests]


def test_metrics_are_those_of_the_trained_weights(arms: list[Arm]) -> None:
    for arm in arms:
        values: dict[str, list[float]] = {name: [] for name in ("l0", "l1", "l2", "linf")}
        values["test_loss"] = []
        for i, training in enumerate(arm.trainings):
            w = training.weights["layers.0.weight"].double().flatten()
            for name, order in (("l0", 0), ("l1", 1), ("l2", 2), ("linf", math.inf)):
                values[name].append(float(torch.linalg.vector_norm(w, order)))
            test = weight_decay.draw(SMALL, SEED + i)[1]
            values["test_loss"].append(half_squares(training.weights, test))
        assert arm.metrics["seeds"] == 3
        for name, own in values.items():
            assert arm.metrics[name] == pytest.approx(statistics.mean(own), rel=1e-4)
            expected = statistics.stdev(own)
            assert arm.metrics[f"{name}_deviation"] == pytest.approx(expected, rel=2e-3)


def test_history_holds_means_over_the_seeds(arms: list[Arm]) -> None:
    for arm in arms:
        assert len(arm.history) == SMALL.epochs
        for epoch, row in enumerate(arm.history):
            every = [training.history[epoch] for training in arm.trainings]
            for name, column in (
                ("train_loss", "train_loss"),
                ("test_loss", "validation_loss"),
                ("l2", "weight_norm"),
            ):
                expected = statistics.fmean(getattr(e, column) for e in every)
                assert row[name] == pytest.approx(expected, rel=1e-14)
        assert {name: arm.metrics[name] for name in arm.history[-1]} == arm.history[-1]


def test_each_training_is_the_one_it_would_be_alone(arms: list[Arm]) -> None:
    for arm, penalty in zip(arms, SMALL.weight_decays, strict=True):
        assert len({digest.weights(t.weights) for t in arm.trainings}) == 3
        for i, training in enumerate(arm.trainings):
            s = replace(SETTINGS, weight_decay=penalty, seed=SEED + i)
            alone = loop.train(s, *weight_decay.draw(SMALL, SEED + i), device="cpu")
            assert repr(training.history) == repr(alone.history)


def test_one_seed_has_no_spread() -> None:
    arm, _ = run(seeds=1, epochs=2)
    assert not [name for name in arm.metrics if name.endswith("_deviation")]


def test_examples_are_drawn_as_the_book_has_it() -> None:
    p = SMALL.model_copy(update={"train": 1500, "test": 500})
    train, test = weight_decay.draw(p, 0)
    assert (len(train), len(test)) == (1500, 500)
    for part in (train, test):
        assert part.inputs.dtype == torch.float32 and part.targets.dtype == torch.float64
        assert part.inputs.mean().item() == pytest.approx(0, abs=0.05)
        assert part.inputs.std().item() == pytest.approx(1, rel=0.05)
        noise = part.targets - (0.05 + 0.01 * part.inputs.double().sum(1, keepdim=True))
        assert noise.mean().item() == pytest.approx(0, abs=0.002)
        assert noise.std().item() == pytest.approx(0.01, rel=0.15)
    assert not torch.equal(train.inputs[:500], test.inputs)
    assert not torch.equal(weight_decay.draw(p, 1)[0].inputs, train.inputs)


def test_decay_shrinks_the_weights_and_helps_unseen_examples() -> None:
    """The finding of the book: fewer examples than inputs are learnt by heart."""
    none, much = (arm.metrics for arm in run(train=10, inputs=40, epochs=60, lr=0.01))
    assert none["train_loss"] < 0.05 * none["test_loss"]
    assert much["test_loss"] < 0.1 * none["test_loss"]
    for norm in ("l1", "l2", "linf"):
        assert much[norm] < 0.5 * none[norm]
    assert none["l0"] == 40  # decay makes weights small, not zero


def test_torch_finds_the_same(arms: list[Arm]) -> None:
    for own, native in zip(arms, run("native"), strict=True):
        assert native.trainings[0].contract == "native/cpu"
        assert own.metrics == pytest.approx(native.metrics, rel=1e-4)


def test_a_rate_that_is_too_high_is_told() -> None:
    with pytest.raises(UserError, match=r"^weight_decay: the training diverged .* below 30"):
        run(lr=30.0, epochs=40)
