"""A model has in a stack the bits that it has alone."""

import math
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import pytest
import torch

from oracles import numbers, train
from refashion import selftest
from refashion.portable import multiply
from refashion.training import loop
from refashion.training.loop import Model, Training
from refashion.training.settings import Settings

LINEAR = Settings(lr=0.05, epochs=3, batch_size=5, num_inputs=7, num_outputs=1, loss="squared")
HIDDEN = replace(LINEAR, hidden=(6, 4), dropout=(), initialisation="he")
KINDS = {
    "linear": LINEAR,
    "momentum": replace(LINEAR, momentum=0.9, lr=0.01),
    "adam": replace(LINEAR, optimizer="adam"),
    "hidden": HIDDEN,
    "hidden, adam": replace(HIDDEN, optimizer="adam", lr=0.01),
    "hidden, momentum": replace(HIDDEN, momentum=0.5, lr=0.02),
    "two outputs": replace(HIDDEN, num_outputs=2),
    "one at a time": replace(LINEAR, batch_size=1, lr=0.02),
    "all at once": replace(LINEAR, batch_size=100),
    "from unit normal": replace(LINEAR, initialisation="unit_normal"),
}
N = 23  # the last batch of an epoch has three examples


def model(kind: Settings, data: int = 0, size: float = 1.0, n: int = N, watched: int = 9) -> Model:
    """A model with training examples that are its own, of its own size."""
    train = numbers(kind, n, data, size)
    return Model(settings=kind, train=train, validation=numbers(kind, watched, data + 1000, size))


def siblings(kind: Settings, **changes: int) -> list[Model]:
    """Models that differ in seed, weight decay and data; some have no decay."""
    return [
        model(replace(kind, seed=seed, weight_decay=decay), data, size, **changes)
        for data, (seed, decay, size) in enumerate(
            [(0, 0.0, 1.0), (1, 3.0, 0.3), (2**63 - 1, 0.0, 1e-6), (1, 1e-9, 1.7)]
        )
    ]


def bits(training: Training) -> tuple[list[str], str]:
    """Whole rows, as text, since NaN is not equal to itself; and the digest of the weights."""
    return [repr(replace(row, model=0)) for row in training.history], training.digest


def alone(models: Sequence[Model]) -> list[tuple[list[str], str]]:
    return [bits(training) for model in models for training in train(model)]


def together(models: Sequence[Model]) -> list[tuple[list[str], str]]:
    """Bits of models that are trained in one stack, and in nothing but a stack."""
    with mock.patch.object(loop, "start", side_effect=AssertionError):
        return [bits(training) for training in train(*models)]


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, N])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_gives_each_model_the_bits_it_has_alone(kind: str, n: int) -> None:
    models = siblings(KINDS[kind], n=n)
    stacked = together(models)
    assert stacked == alone(models)
    assert len({digest for _, digest in stacked}) == 4
    told = [(row.epoch, row.model) for row, _ in loop.train(models, device="cpu")]
    assert told == [(epoch, number) for epoch in (1, 2, 3) for number in range(4)]


@pytest.mark.parametrize("kind", ["linear", "hidden, adam"])
def test_int8_products_alone_and_batches_in_a_stack(kind: str) -> None:
    """Alone a model may take the int8 way, which no stack has."""
    models = siblings(KINDS[kind])
    with multiply.products("int8"):
        of_each = alone(models)
    assert together(models) == of_each


def test_a_model_does_not_see_its_neighbours() -> None:
    """Not their number, their order, their data or their decay."""
    first, *others = siblings(HIDDEN)
    want = together([first, *others])[0]
    louder = [replace(m, train=numbers(HIDDEN, N, i, 2.0)) for i, m in enumerate(others, start=1)]
    for neighbours in (others[::-1], others[:1], louder, [first]):
        assert together([*neighbours, first])[-1] == want


def test_a_stack_with_nothing_to_watch() -> None:
    unwatched = siblings(LINEAR, watched=0)
    assert together(unwatched) == alone(unwatched)
    watched = together(siblings(LINEAR))
    assert [digest for _, digest in together(unwatched)] == [digest for _, digest in watched]
    assert all(math.isnan(row.validation_loss) for t in train(*unwatched) for row in t.history)


# --- when there is no stack -------------------------------------------------------------------

IMAGES = selftest.examples(torch.device("cpu"))
APART = {
    "one model": [model(LINEAR)],
    "numbers of examples": [model(LINEAR), model(LINEAR, n=N - 1)],
    "numbers to watch": [model(LINEAR), model(LINEAR, watched=3)],
    "nothing to watch": [model(LINEAR), model(LINEAR, watched=0)],
    "learning rates": [model(LINEAR), model(replace(LINEAR, lr=0.01))],
    "batch sizes": [model(LINEAR), model(replace(LINEAR, batch_size=4))],
    "epochs": [model(LINEAR), model(replace(LINEAR, epochs=2))],
    "optimizers": [model(LINEAR), model(replace(LINEAR, optimizer="adam"))],
    "widths": [model(HIDDEN), model(replace(HIDDEN, hidden=(6, 5)))],
    "native": siblings(replace(HIDDEN, numerics="native")),
    "dropout": [model(replace(HIDDEN, dropout=(0.5, 0.0)), data) for data in range(2)],
    "classifiers": [
        Model(settings=Settings(epochs=1, seed=seed), train=IMAGES[:50], validation=IMAGES[50:60])
        for seed in range(2)
    ],
}


@pytest.mark.parametrize("case", APART)
def test_models_that_differ_in_more_are_trained_one_after_another(case: str) -> None:
    models = APART[case]
    with mock.patch.object(loop, "Stack", side_effect=AssertionError):
        assert [bits(training) for training in train(*models)] == alone(models)


# --- divergence -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "hidden", "hidden, adam"])
def test_a_model_of_a_stack_that_diverges_ends_alone(kind: str) -> None:
    base = replace(KINDS[kind], lr=0.02, epochs=60)
    if base.optimizer == "adam":  # whose steps have one length, whatever the gradient
        models = [model(base, data, size) for data, size in enumerate((1.0, 1e30, 1.0))]
    else:
        decays = enumerate((0.0, 1e9, 0.3))
        models = [model(replace(base, weight_decay=decay), data) for data, decay in decays]
    stacked = together(models)
    assert stacked == alone(models)
    assert [len(rows) < 60 for rows, _ in stacked] == [False, True, False]


def test_all_models_diverge() -> None:
    models = [model(replace(LINEAR, lr=1e38, seed=seed)) for seed in range(2)]
    assert all(training.diverged and not training.history for training in train(*models))
