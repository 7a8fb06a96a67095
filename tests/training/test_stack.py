"""A model has in a stack the bits that it has alone."""

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import hypothesis
import pytest
from hypothesis import strategies as st

from oracles import HIDDEN, LINEAR, MLP, SOFTMAX, N, model, train
from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.portable import multiply
from refashion.studies import classifiers
from refashion.training import loop
from refashion.training.engine import Examples
from refashion.training.loop import Model, Training
from refashion.training.settings import Settings

KINDS = {
    "linear": LINEAR,
    "momentum": replace(LINEAR, momentum=0.9, lr=0.01),
    "adam": replace(LINEAR, optimizer="adam"),
    "hidden": HIDDEN,
    "hidden, adam": replace(HIDDEN, optimizer="adam", lr=0.01),
    "two outputs": replace(HIDDEN, num_outputs=2),
    "one at a time": replace(LINEAR, batch_size=1, lr=0.02),
    "all at once": replace(LINEAR, batch_size=100),
    "from unit normal": replace(LINEAR, initialisation="unit_normal"),
    "softmax": SOFTMAX,
    "mlp": MLP,
    "mlp, adam": replace(MLP, optimizer="adam", lr=0.01),
    "dropout": replace(SOFTMAX, hidden=(6, 4), dropout=(0.2, 0.5)),
    "ties": replace(SOFTMAX, initialisation="constant", epochs=2, batch_size=100),
}


def siblings(kind: Settings, **changes: int) -> list[Model]:
    """Models that differ in seed, rates and data; some have no decay."""
    return [
        model(
            replace(kind, seed=seed, weight_decay=decay, lr=kind.lr * rate), data, size, **changes
        )
        for data, (seed, decay, size, rate) in enumerate(
            [(0, 0.0, 1.0, 1), (1, 3.0, 0.3, 1), (2**63 - 1, 0.0, 1e-6, 0.7), (1, 1e-9, 1.7, 1e-3)]
        )
    ]


def shared(*settings: Settings) -> list[Model]:
    """Models with the same examples."""
    first = model(settings[0])
    return [replace(first, settings=s) for s in settings]


def rates(kind: Settings) -> list[Model]:
    """Models that share batches."""
    return shared(kind, replace(kind, lr=kind.lr / 3), replace(kind, weight_decay=0.1, lr=0.01))


def bits(training: Training) -> tuple[list[str], str]:
    """Whole rows, as text, since NaN is not equal to itself; and the digest of the weights."""
    return [repr(replace(row, model=0)) for row in training.history], training.digest


def alone(models: Sequence[Model]) -> list[tuple[list[str], str]]:
    return [bits(training) for model in models for training in train(model)]


def together(models: Sequence[Model]) -> list[tuple[list[str], str]]:
    """Bits of models that are trained in stacks, and in nothing but stacks."""
    with mock.patch.object(loop, "start", wraps=loop.start) as start:
        trainings = train(*models)
    assert all(len(call.args[0]) > 1 for call in start.call_args_list)
    return [bits(training) for training in trainings]


def stacks(models: Sequence[Model]) -> list[list[int]]:
    """Numbers of the models of each stack, in the order in which stacks are trained."""
    found: list[list[int]] = []
    epoch = 0
    for row, _ in loop.train(models, device="cpu"):
        if row.epoch == 1:
            if epoch != 1:
                found.append([])
            found[-1].append(row.model)
        epoch = row.epoch
    return found


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, N])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_gives_each_model_the_bits_it_has_alone(kind: str, n: int) -> None:
    models = siblings(KINDS[kind], n=n)
    stacked = together(models)
    assert stacked == alone(models)
    assert len({digest for _, digest in stacked}) == 4
    assert stacks(models) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("way", ["int8", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_models_that_share_batches_in_one_wide_product(kind: str, way: str) -> None:
    models = rates(KINDS[kind])
    with multiply.products(way):
        stacked = together(models)
    assert stacked == alone(models)


@st.composite
def mixtures(draw: st.DrawFn) -> list[Model]:
    """Models of one shape that differ in all else, or in little, and of which some diverge."""
    kind = replace(
        draw(st.sampled_from([SOFTMAX, MLP, HIDDEN])),
        hidden=draw(st.sampled_from([(), (6,), (70, 5)])),
        dropout=(),
        batch_size=draw(st.sampled_from([1, 4, 10, 100])),
        optimizer=draw(st.sampled_from(["sgd", "sgd", "adam"])),
        epochs=2,
    )
    sets = [model(kind, data, n=11, watched=4) for data in range(2)]
    return [
        Model(
            settings=replace(
                kind,
                seed=draw(st.sampled_from([0, 0, 2**63 - 1])),
                lr=draw(st.sampled_from([0.01, 0.3, 1e-38, 1e38])),
                weight_decay=draw(st.sampled_from([0.0, 0.01, 3.0])),
                momentum=draw(st.sampled_from([0.0, 0.5, 0.99])),
                dropout=tuple(draw(st.sampled_from([0.0, 0.5, 0.999])) for _ in kind.hidden),
            ),
            train=sets[draw(st.integers(0, 1))].train,
            validation=sets[draw(st.integers(0, 1))].validation,
        )
        for _ in range(draw(st.integers(2, 5)))
    ]


@hypothesis.given(mixtures(), st.sampled_from(["int8", "float64"]))
@hypothesis.settings(max_examples=60)
def test_any_mixture(models: list[Model], way: str) -> None:
    with multiply.products(way):
        stacked = [bits(training) for training in train(*models)]
    assert stacked == alone(models)


def test_a_stack_with_nothing_to_watch() -> None:
    unwatched = siblings(LINEAR, watched=0)
    assert together(unwatched) == alone(unwatched)
    assert all(math.isnan(row.validation_loss) for t in train(*unwatched) for row in t.history)


@pytest.mark.parametrize("name", ["softmax", "mlp", "dropout"])
def test_committed_bits_of_a_variant_in_a_stack(name: str) -> None:
    """The first epoch on the official images, beside a model with another learning rate."""
    workspace = Workspace.here()
    if not workspace.train.exists():
        pytest.skip("the official images are not prepared: dvc repro preprocess")
    chosen = replace(classifiers.settings(workspace.params(), name), epochs=1)
    splits = [prepared.load(part) for part in (workspace.train, workspace.validation)]
    train_set, validation = (Examples.of_images(s.images, s.labels) for s in splits)
    models = [
        Model(settings=replace(chosen, lr=lr), train=train_set, validation=validation)
        for lr in (chosen.lr / 7, chosen.lr)
    ]
    history = workspace.root / "models" / name / "history.csv"
    with history.open() as file:
        want = next(csv.DictReader(file))
    row = train(*models)[1].history[0]
    assert {column: str(getattr(row, column)) for column in want} == want


# --- which models make a stack ----------------------------------------------------------------

APART: dict[str, list[Model]] = {
    "one model": [model(LINEAR)],
    "numbers of examples": [model(LINEAR), model(LINEAR, n=N - 1)],
    "numbers to watch": [model(LINEAR), model(LINEAR, watched=3)],
    "nothing to watch": [model(LINEAR), model(LINEAR, watched=0)],
    "batch sizes": [model(LINEAR), model(replace(LINEAR, batch_size=4))],
    "epochs": [model(LINEAR), model(replace(LINEAR, epochs=2))],
    "optimizers": [model(LINEAR), model(replace(LINEAR, optimizer="adam"))],
    "widths": [model(HIDDEN), model(replace(HIDDEN, hidden=(6, 5)))],
    "native": siblings(replace(HIDDEN, numerics="native")),
}


@pytest.mark.parametrize("case", APART)
def test_models_that_differ_in_more_are_trained_one_after_another(case: str) -> None:
    models = APART[case]
    assert stacks(models) == [[i] for i in range(len(models))]
    assert [bits(training) for training in train(*models)] == alone(models)


def test_models_are_grouped_by_shape_and_by_shared_batches() -> None:
    sharing = shared(*(replace(MLP, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in (0, 1)))
    models = [model(MLP, 5), *sharing, model(SOFTMAX), model(replace(MLP, seed=3), 6)]
    assert stacks(models) == [[0, 6], [1, 3], [2, 4], [5]]
    assert [bits(training) for training in train(*models)] == alone(models)


# --- divergence -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["linear", "hidden", "hidden, adam"])
def test_a_model_of_a_stack_that_diverges_ends_alone(kind: str) -> None:
    base = replace(KINDS[kind], lr=0.02, epochs=5)
    if base.optimizer == "adam":  # whose steps have one length, whatever the gradient
        models = [model(base, data, size) for data, size in enumerate((1.0, 1e30, 1.0))]
    else:
        decays = enumerate((0.0, 1e9, 0.3))
        models = [model(replace(base, weight_decay=decay), data) for data, decay in decays]
    stacked = together(models)
    assert stacked == alone(models)
    assert [len(rows) < 5 for rows, _ in stacked] == [False, True, False]
