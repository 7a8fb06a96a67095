"""A model has the same bits in a stack as alone; and learns numbers as torch does."""

import math
from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from refashion import selftest
from refashion.portable import multiply, streams
from refashion.training import digest, initial, loop, stack
from refashion.training.engine import Engine, Examples
from refashion.training.initial import Weights
from refashion.training.loop import Diverged, Training
from refashion.training.native import NativeEngine
from refashion.training.optimizers import OPTIMIZERS
from refashion.training.portable import PortableEngine
from refashion.training.settings import Settings

CPU = torch.device("cpu")
LINEAR = Settings(
    hidden=(),
    dropout=(),
    lr=0.05,
    seed=0,
    epochs=3,
    batch_size=5,
    weight_decay=0.0,
    momentum=0.0,
    numerics="portable",
    num_inputs=7,
    num_outputs=1,
    loss="squared",
)
HIDDEN = replace(LINEAR, hidden=(6, 4), dropout=(0.0, 0.0), initialisation="he")
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
Pair = tuple[Examples, Examples]


def examples(seed: int, n: int, s: Settings = LINEAR, size: float = 1.0) -> Examples:
    """Targets that follow from the inputs, and some noise; a seed has a size of its own."""
    inputs = streams.normal((n, s.num_inputs), streams.key(seed, streams.Purpose.SELFTEST, 0))
    noise = streams.normal((n, s.num_outputs), streams.key(seed, streams.Purpose.SELFTEST, 1))
    inputs = (inputs * size).to(torch.float32)
    targets = inputs[:, : s.num_outputs].double() * 2 - inputs[:, -1:].double() + 1 + noise * 0.1
    return Examples(inputs=inputs, targets=targets)


def pair(seed: int, s: Settings = LINEAR, size: float = 1.0) -> Pair:
    return examples(seed, N, s, size), examples(seed + 1000, 9, s, size)


def siblings(s: Settings) -> list[Settings]:
    """Models that differ in seed and weight decay, some with none at all."""
    return [
        replace(s, seed=seed, weight_decay=weight_decay)
        for seed, weight_decay in ((0, 0.0), (1, 3.0), (7, 0.0), (1, 0.1))
    ]


def exactly(training: Training) -> tuple[list[str], str, str]:
    """Whole rows; text, since NaN is not equal to itself."""
    return (
        [repr(row) for row in training.history],
        digest.weights(training.weights),
        (training.contract),
    )


def alone(models: Sequence[Settings], data: Sequence[Pair]) -> list[Training]:
    return [loop.train(s, *own, device="cpu") for s, own in zip(models, data, strict=True)]


def together(models: Sequence[Settings], data: Sequence[Pair]) -> list[Training]:
    """Train in one stack, and in nothing but a stack."""
    assert stack.stackable(models, [train for train, _ in data])
    with mock.patch.object(loop, "Separately", side_effect=AssertionError):
        return loop.train_together(models, data, device="cpu")


def assert_the_same(got: Sequence[Training], want: Sequence[Training]) -> None:
    for one, other in zip(got, want, strict=True):
        assert exactly(one) == exactly(other)


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_gives_each_model_the_bits_it_has_alone(kind: str) -> None:
    models = siblings(KINDS[kind])
    data = [pair(i, KINDS[kind], size) for i, size in enumerate((1.0, 0.3, 1.7, 1.0))]
    found = together(models, data)
    assert_the_same(found, alone(models, data))
    assert len({digest.weights(training.weights) for training in found}) == 4
    for s, training in zip(models, found, strict=True):
        assert len(training.history) == s.epochs
        start = initial.weights(s.widths, s.seed, s.initialisation)
        for name, tensor in training.weights.items():
            assert tensor.shape == start[name].shape and tensor.dtype == torch.float32
            assert torch.isfinite(tensor).all() and not torch.equal(tensor, start[name])


@given(
    kind=st.sampled_from(list(KINDS)),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=4),
    decays=st.lists(st.sampled_from([0.0, 1e-9, 0.3, 3.0]), min_size=4, max_size=4),
    n=st.integers(1, 12),
    size=st.sampled_from([1e-6, 1e-3, 1.0]),
)
@settings(max_examples=25)
def test_any_stack(kind: str, seeds: list[int], decays: list[float], n: int, size: float) -> None:
    base = replace(KINDS[kind], epochs=2)
    models = [
        replace(base, seed=seed, weight_decay=decay)
        for seed, decay in zip(seeds, decays, strict=False)
    ]
    data = [(examples(i, n, base, size), examples(99, 3, base)) for i in range(len(models))]
    assert_the_same(together(models, data), alone(models, data))


@pytest.mark.parametrize("kind", ["linear", "hidden, adam"])
def test_digits_alone_and_batches_in_a_stack(kind: str) -> None:
    """Alone a model may take the int8 way, which no stack has."""
    models = siblings(KINDS[kind])
    data = [pair(i, KINDS[kind]) for i in range(4)]
    found = together(models, data)
    with multiply.products("int8"):
        assert_the_same(found, alone(models, data))


def test_a_model_does_not_see_its_neighbours() -> None:
    """Not their number, their order, their data or their decay."""
    models, data = siblings(HIDDEN), [pair(i, HIDDEN) for i in range(4)]
    first = together(models, data)[0]
    assert exactly(together(models[::-1], data[::-1])[-1]) == exactly(first)
    assert exactly(together(models[:2], data[:2])[0]) == exactly(first)
    loud = [data[0], *(pair(i, HIDDEN, 2.0) for i in range(1, 4))]
    assert exactly(together(models, loud)[0]) == exactly(first)


def test_models_that_differ_in_nothing_are_the_same() -> None:
    one, other = together([HIDDEN, HIDDEN], [pair(0, HIDDEN)] * 2)
    assert exactly(one) == exactly(other)


def test_nothing_to_watch() -> None:
    models = siblings(LINEAR)
    data = [pair(i) for i in range(4)]
    unwatched = [(train, Examples(inputs=w.inputs[:0], targets=w.targets[:0])) for train, w in data]
    found = together(models, unwatched)
    assert_the_same(found, alone(models, unwatched))
    for watched, training in zip(together(models, data), found, strict=True):
        assert all(math.isnan(row.validation_loss) for row in training.history)
        assert training.history[-1].weights_sha256 == watched.history[-1].weights_sha256


def test_every_epoch_of_every_model_is_told() -> None:
    told: list[tuple[int, int, str]] = []

    def after_epoch(model: int, row: loop.Epoch, weights: Weights, seconds: float) -> None:
        assert seconds >= 0
        assert row.weights_sha256 == digest.weights(weights)
        told.append((model, row.epoch, row.weights_sha256))

    models, data = siblings(LINEAR), [pair(i) for i in range(4)]
    found = loop.train_together(models, data, device="cpu", after_epoch=after_epoch)
    want = [(i, e, found[i].history[e - 1].weights_sha256) for e in (1, 2, 3) for i in range(4)]
    assert told == want


# --- when there is no stack -------------------------------------------------------------------


def other_shape() -> list[Pair]:
    return [pair(0), (examples(1, N - 1), examples(2, 9))]


APART: dict[str, tuple[list[Settings], list[Pair]]] = {
    "one model": ([LINEAR], [pair(0)]),
    "shapes": ([LINEAR, LINEAR], other_shape()),
    "learning rates": ([LINEAR, replace(LINEAR, lr=0.01)], [pair(0), pair(1)]),
    "batch sizes": ([LINEAR, replace(LINEAR, batch_size=4)], [pair(0), pair(1)]),
    "optimizers": ([LINEAR, replace(LINEAR, optimizer="adam")], [pair(0), pair(1)]),
    "widths": ([HIDDEN, replace(HIDDEN, hidden=(6, 5))], [pair(0), pair(1)]),
    "native": ([replace(s, numerics="native") for s in siblings(HIDDEN)], [pair(0)] * 4),
    "dropout": ([replace(HIDDEN, dropout=(0.5, 0.0))] * 2, [pair(0), pair(1)]),
}


@pytest.mark.parametrize("case", APART)
def test_models_that_differ_in_more_are_trained_apart(case: str) -> None:
    models, data = APART[case]
    assert not stack.stackable(models, [train for train, _ in data])
    found = loop.train_together(models, data, device="cpu")
    assert_the_same(found, alone(models, data))


def test_validation_sets_of_different_sizes() -> None:
    (train, watched), other = pair(0), pair(1)
    fewer = Examples(inputs=watched.inputs[:3], targets=watched.targets[:3])
    models, data = [LINEAR, replace(LINEAR, seed=1)], [(train, fewer), other]
    assert not stack.stackable(models, [train, other[0]], [fewer, other[1]])
    assert_the_same(loop.train_together(models, data, device="cpu"), alone(models, data))


def test_classifiers_are_trained_apart() -> None:
    images = selftest.examples(CPU)
    train = Examples(inputs=images.inputs[:50], targets=images.targets[:50])
    watched = Examples(inputs=images.inputs[50:60], targets=images.targets[50:60])
    models = [replace(selftest.INSTANCES["softmax"], seed=seed) for seed in (0, 1)]
    data = [(train, watched)] * 2
    assert not stack.stackable(models, [train, train])
    assert_the_same(loop.train_together(models, data, device="cpu"), alone(models, data))


# --- divergence -------------------------------------------------------------------------------


def test_divergence_carries_what_came_before() -> None:
    wild = replace(LINEAR, lr=100.0, epochs=20)
    with pytest.raises(Diverged, match=r"diverged in epoch \d+ .*below 100") as caught:
        loop.train(wild, *pair(0), device="cpu")
    before = caught.value.before
    epochs = len(before.history)
    assert 0 < epochs < 20
    assert f"in epoch {epochs + 1} " in str(caught.value)
    assert exactly(before) == exactly(
        loop.train(replace(wild, epochs=epochs), *pair(0), device="cpu")
    )
    assert all(torch.isfinite(t).all() for t in before.weights.values())


def test_divergence_at_once_leaves_the_start() -> None:
    with pytest.raises(Diverged) as caught:
        loop.train(replace(LINEAR, lr=1e38), *pair(0), device="cpu")
    before = caught.value.before
    assert before.history == []
    start = initial.weights(LINEAR.widths, LINEAR.seed)
    assert digest.weights(before.weights) == digest.weights(start)


@pytest.mark.parametrize("kind", ["linear", "hidden", "hidden, adam"])
def test_a_model_of_a_stack_that_diverges_ends_alone(kind: str) -> None:
    base = replace(KINDS[kind], lr=0.02, epochs=60)
    models = [replace(base, weight_decay=decay) for decay in (0.0, 1e9, 0.3)]
    if base.optimizer == "adam":
        models = [replace(base, seed=seed) for seed in range(3)]
    data = [pair(0, base), pair(1, base, 1e30 if base.optimizer == "adam" else 1.0), pair(2, base)]
    found = together(models, data)
    assert [training.diverged for training in found] == [False, True, False]
    assert len(found[1].history) < 60
    for i in (0, 2):
        assert exactly(found[i]) == exactly(loop.train(models[i], *data[i], device="cpu"))
    with pytest.raises(Diverged) as caught:
        loop.train(models[1], *data[1], device="cpu")
    assert exactly(caught.value.before) == exactly(found[1])


def test_all_models_diverge() -> None:
    models = [replace(LINEAR, lr=1e38, epochs=5, seed=seed) for seed in range(2)]
    found = together(models, [pair(0), pair(1)])
    assert all(training.diverged and not training.history for training in found)


def test_a_neighbour_without_weight_decay_is_left_alone() -> None:
    """Zero times an infinite weight is no number, and adding zero takes a zero's sign."""
    parameters = [torch.tensor([[[torch.inf]], [[-0.0]], [[1.0]]]), torch.zeros(3, 1, 1)]
    decay = torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64)[:, None, None]
    gradients = [torch.tensor([[[1.0]], [[-0.0]], [[0.0]]]), torch.zeros(3, 1, 1)]
    OPTIMIZERS["sgd"](replace(LINEAR, lr=1.0), parameters, decay).step(gradients)
    assert parameters[0].flatten().tolist() == [torch.inf, 0.0, 0.5]
    assert not parameters[0][1].signbit()


# --- both engines -----------------------------------------------------------------------------


def vector(weights: Weights) -> Tensor:
    return torch.cat([weights[name].flatten().double() for name in sorted(weights)])


def distance(a: Weights, b: Weights) -> float:
    """Between two sets of weights, relative to their norm."""
    return float((vector(a) - vector(b)).norm() / vector(b).norm())


def forward(parameters: Weights, inputs: Tensor) -> Tensor:
    """Outputs in float64, written as the book writes them."""
    h = inputs.double()
    layers = len(parameters) // 2
    for i in range(layers):
        h = h @ parameters[f"layers.{i}.weight"] + parameters[f"layers.{i}.bias"]
        h = torch.relu(h) if i < layers - 1 else h
    return h


def by_autograd(start: Weights, data: Examples) -> Weights:
    """Gradients of the mean loss, all in float64."""
    parameters = {name: t.double().requires_grad_() for name, t in start.items()}
    if data.targets.is_floating_point():
        outputs = forward(parameters, data.inputs)
        loss = torch.nn.functional.mse_loss(outputs, data.targets) / 2
    else:
        outputs = forward(parameters, data.inputs.double() / 255)
        loss = torch.nn.functional.cross_entropy(outputs, data.targets)
    found = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


# A seed with which no unit is so close to 0 that rounding puts it on the other side.
PIXELS = replace(
    selftest.INSTANCES["mlp"], hidden=(12, 8), dropout=(0.3, 0.3), initialisation="he", seed=1
)


@pytest.mark.parametrize(
    ("s", "tolerance"),
    [
        (PIXELS, 1e-3),
        (replace(PIXELS, hidden=(), dropout=()), 1e-3),
        (HIDDEN, 1e-5),
        (LINEAR, 1e-5),
    ],
    ids=["pixels, hidden", "pixels", "features, hidden", "features"],
)
@pytest.mark.parametrize("engine", [PortableEngine, NativeEngine])
def test_gradients_are_autograds(engine: type[Engine], s: Settings, tolerance: float) -> None:
    """Dropout, which the settings ask for, plays no part."""
    images = selftest.examples(CPU)
    data = Examples(inputs=images.inputs[:100], targets=images.targets[:100])
    if s.loss == "squared":
        data = examples(0, 100, s)
    start = initial.weights(s.widths, s.seed, s.initialisation)
    found = engine(s, start, CPU)
    got, want = found.gradients(data), by_autograd(start, data)
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == torch.float32 and got[name].shape == start[name].shape
        assert want[name].norm() > 1e-3
        assert (got[name] - want[name]).norm() < tolerance * want[name].norm(), name
    assert digest.weights(found.weights()) == digest.weights(start)  # nothing learnt


@pytest.mark.parametrize("engine", [PortableEngine, NativeEngine])
def test_asking_for_gradients_changes_no_training(engine: type[Engine]) -> None:
    start, data = initial.weights(HIDDEN.widths, 0, "he"), examples(0, N)
    asked, plain = (engine(replace(HIDDEN, optimizer="adam"), start, CPU) for _ in range(2))
    for epoch in (1, 2):
        asked.gradients(data)
        for found in (asked, plain):
            found.train_epoch(data, epoch)
    assert digest.weights(asked.weights()) == digest.weights(plain.weights())


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["linear", "momentum", "adam", "hidden", "hidden, adam"])
def test_both_engines_learn_the_same_numbers(kind: str, weight_decay: float) -> None:
    s = replace(KINDS[kind], epochs=5, weight_decay=weight_decay)
    own, native = (
        loop.train(replace(s, numerics=numerics), *pair(0, s), device="cpu")
        for numerics in ("portable", "native")
    )
    start = initial.weights(s.widths, s.seed, s.initialisation)
    assert distance(start, native.weights) > 0.1  # they went somewhere
    assert distance(own.weights, native.weights) < 1e-4
    for one, other in zip(own.history, native.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert math.isnan(one.train_accuracy) and math.isnan(other.train_accuracy)
    assert own.history[-1].train_loss < own.history[0].train_loss


def test_linear_regression_finds_least_squares() -> None:
    s = replace(LINEAR, epochs=100, batch_size=N, lr=0.7)
    train, watched = pair(0)
    found = loop.train(s, train, watched, device="cpu").weights
    inputs = torch.cat([train.inputs.double(), torch.ones(N, 1, dtype=torch.float64)], 1)
    want = torch.linalg.lstsq(inputs, train.targets).solution
    torch.testing.assert_close(found["layers.0.weight"].double(), want[:-1], rtol=0, atol=1e-3)
    torch.testing.assert_close(found["layers.0.bias"].double(), want[-1], rtol=0, atol=1e-3)
