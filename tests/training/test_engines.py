"""Both engines against float64 autograd, finite differences and each other."""

import functools
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from refashion import selftest
from refashion.base.errors import UserError
from refashion.portable import exact, multiply, streams
from refashion.portable.exact import Fixed
from refashion.training import initial, loop, portable
from refashion.training.engine import Engine, Examples, batches, mask, order
from refashion.training.initial import Weights
from refashion.training.native import NativeEngine
from refashion.training.portable import PortableEngine
from refashion.training.settings import Settings

CPU = torch.device("cpu")
ENGINES: list[type[Engine]] = [PortableEngine, NativeEngine]
VARIANTS = {n: selftest.INSTANCES[n] for n in ("softmax", "mlp", "dropout", "momentum")}
# Grids of 14 bits: 2**-14 = 6e-5; a hidden unit close to 0 may fall on its other side.
# Measured: 7e-5, 1.9e-3, 3.1e-3, 1.5e-4.
GRADIENT_TOLERANCE = {"softmax": 2e-4, "mlp": 5e-3, "dropout": 8e-3, "momentum": 5e-4}
# Relative to the weights' norm after 50 steps. Measured: 7.8e-6, 8.1e-4, 1.2e-2, 2.1e-3.
TRAJECTORY_TOLERANCE = {"softmax": 3e-5, "mlp": 3e-3, "dropout": 3e-2, "momentum": 6e-3}


@functools.cache
def examples(n: int = 640) -> Examples:
    data = selftest.examples(CPU)
    return Examples(inputs=data.inputs[:n], targets=data.targets[:n])


def start(settings: Settings) -> Weights:
    return initial.weights(settings.widths, settings.seed)


def grown(settings: Settings) -> Weights:
    """Weights under which every layer's gradient has a usual size; biases that are not zero."""
    weights = {}
    for name, tensor in start(settings).items():
        if name.endswith("weight"):
            weights[name] = tensor * 8
        else:
            key = streams.key(99, streams.Purpose.SELFTEST, int(name.split(".")[1]))
            weights[name] = streams.normal(tuple(tensor.shape), key).to(torch.float32) * 0.1
    return weights


def vector(weights: Weights) -> Tensor:
    return torch.cat([weights[name].flatten().double() for name in sorted(weights)])


def same_bits(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[name].view(torch.int32), b[name].view(torch.int32)) for name in a
    )


def trained(engine: type[Engine], settings: Settings, data: Examples, begin: Weights) -> Engine:
    found = engine(settings, begin, CPU)
    for epoch in range(1, settings.epochs + 1):
        found.train_epoch(data, epoch)
    return found


def forward(
    weights: list[Tensor], biases: list[Tensor], settings: Settings, images: Tensor, masks: list
) -> Tensor:
    """Logits in float64, written as the book writes them."""
    h = images.double() / 255
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        h = h @ w + b
        if layer < len(settings.hidden):
            h = torch.relu(h)
            if settings.dropout[layer]:
                h = h * masks[layer] / streams.keep_probability(settings.dropout[layer])
    return h


def masks_of(settings: Settings, rows: slice, epoch: int) -> list[Tensor]:
    layers = range(len(settings.hidden))
    return [mask(settings, rows, epoch, layer, CPU) for layer in layers]


def reference(settings: Settings, data: Examples, begin: Weights) -> Weights:
    """The same training by float64 autograd and ``torch.optim.SGD``."""
    layers = range(len(settings.widths) - 1)
    weights = [begin[f"layers.{i}.weight"].double().requires_grad_() for i in layers]
    biases = [begin[f"layers.{i}.bias"].double().requires_grad_() for i in layers]
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": biases},
    ]
    optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    for epoch in range(1, settings.epochs + 1):
        indices = order(settings, len(data), epoch, CPU)
        for rows in batches(len(data), settings.batch_size):
            batch, masks = indices[rows], masks_of(settings, rows, epoch)
            logits = forward(weights, biases, settings, data.inputs[batch], masks)
            optimizer.zero_grad()
            cross_entropy(logits, data.targets[batch]).backward()
            optimizer.step()
    result = {f"layers.{i}.weight": w.detach() for i, w in enumerate(weights)}
    return result | {f"layers.{i}.bias": b.detach() for i, b in enumerate(biases)}


def one_step(settings: Settings, n: int) -> tuple[Settings, Examples]:
    """Settings and examples whose training is one step down the bare gradient."""
    bare = replace(settings, lr=1.0, momentum=0.0, weight_decay=0.0, epochs=1, batch_size=n)
    return bare, examples(n)


# --- gradients --------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_autograds(engine: type[Engine], name: str) -> None:
    settings, data = one_step(VARIANTS[name], 200)
    begin = grown(settings)
    moved = trained(engine, settings, data, begin).weights()
    want = reference(settings, data, begin)
    for tensor in begin:
        gradient = begin[tensor].double() - moved[tensor].double()
        expected = begin[tensor].double() - want[tensor]
        assert expected.norm() > 1e-3
        error = (gradient - expected).norm() / expected.norm()
        assert error < GRADIENT_TOLERANCE[name], tensor


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_are_finite_differences(name: str) -> None:
    """The loss's own slope, with no derivative in sight."""
    settings, data = one_step(VARIANTS[name], 100)
    begin = grown(settings)
    moved = trained(PortableEngine, settings, data, begin).weights()
    indices = order(settings, len(data), 1, CPU)
    masks = masks_of(settings, slice(0, len(data)), 1)
    layers = range(len(settings.widths) - 1)

    def loss(weights: Weights) -> float:
        w = [weights[f"layers.{i}.weight"] for i in layers]
        b = [weights[f"layers.{i}.bias"] for i in layers]
        logits = forward(w, b, settings, data.inputs[indices], masks)
        return float(cross_entropy(logits, data.targets[indices]))

    step = 1e-6
    for tensor in begin:
        gradient = begin[tensor].double() - moved[tensor].double()
        size = gradient.abs().max()
        for index in gradient.abs().flatten().argsort(descending=True)[[0, 3, 9]].tolist():
            slopes = []
            for sign in (1, -1):
                nudged = {k: v.double() for k, v in begin.items()}
                nudged[tensor].view(-1)[index] += sign * step
                slopes.append(loss(nudged))
            slope = (slopes[0] - slopes[1]) / (2 * step)
            assert abs(slope - gradient.flatten()[index]) < 1e-3 * size, tensor


@pytest.mark.parametrize("engine", ENGINES)
def test_weight_decay_spares_the_biases(engine: type[Engine]) -> None:
    settings, data = one_step(VARIANTS["mlp"], 100)
    begin = grown(settings)
    plain = trained(engine, settings, data, begin).weights()
    decayed = trained(engine, replace(settings, weight_decay=0.25), data, begin).weights()
    for tensor in begin:
        pull = plain[tensor] - decayed[tensor]
        if tensor.endswith("bias"):
            assert not pull.any()
        else:
            torch.testing.assert_close(pull, 0.25 * begin[tensor], rtol=1e-4, atol=1e-6)


# --- trajectories -----------------------------------------------------------------------------


def distance(a: Weights, b: Weights) -> float:
    """Between two sets of weights, relative to their norm."""
    return float((vector(a) - vector(b)).norm() / vector(b).norm())


@pytest.mark.parametrize("name", VARIANTS)
def test_both_engines_go_the_same_way(name: str) -> None:
    """Fifty steps from the same start, with float64 as the umpire."""
    settings = replace(VARIANTS[name], batch_size=64, epochs=5)
    begin = start(settings)
    native, own = (trained(e, settings, examples(), begin) for e in (NativeEngine, PortableEngine))
    want = reference(settings, examples(), begin)
    assert distance(begin, want) > 0.3  # they went somewhere
    assert distance(native.weights(), want) < 1e-5
    assert distance(own.weights(), want) < TRAJECTORY_TOLERANCE[name]
    assert distance(own.weights(), native.weights()) < TRAJECTORY_TOLERANCE[name]
    fits = own.fit(examples()), native.fit(examples())
    assert fits[0].loss == pytest.approx(fits[1].loss, abs=TRAJECTORY_TOLERANCE[name])
    assert fits[0].accuracy == pytest.approx(fits[1].accuracy, abs=0.03)


@pytest.mark.parametrize("engine", ENGINES)
def test_momentum_and_decay_are_those_of_torch(engine: type[Engine]) -> None:
    settings = replace(
        VARIANTS["softmax"], momentum=0.9, weight_decay=0.1, epochs=3, batch_size=200
    )
    begin = grown(settings)
    got = trained(engine, settings, examples(500), begin).weights()
    assert distance(got, reference(settings, examples(500), begin)) < 5e-5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("batch_size", "n"),
    [(1, 7), (1, 1), (64, 64), (64, 65), (100, 250), (1000, 300)],
    ids=["one", "one of one", "whole", "last of one", "last smaller", "more than there is"],
)
@pytest.mark.parametrize("name", ["softmax", "dropout"])
def test_batches_of_every_size(engine: type[Engine], name: str, batch_size: int, n: int) -> None:
    narrow = (32,) * len(VARIANTS[name].hidden)
    settings = replace(VARIANTS[name], hidden=narrow, lr=0.05, batch_size=batch_size, epochs=1)
    steps: list[int] = []
    found = engine(settings, grown(settings), CPU)
    fit = found.train_epoch(examples(n), 1, steps.append)
    assert steps == list(range(1, -(-n // batch_size) + 1))
    want = reference(settings, examples(n), grown(settings))
    assert distance(found.weights(), want) < GRADIENT_TOLERANCE[name] * len(steps)
    assert np.isfinite(fit.loss) and 0 <= fit.accuracy <= 1


@pytest.mark.parametrize(
    "hidden", [(1,), (1, 1), (4096,), (3, 1, 2)], ids=lambda hidden: "-".join(map(str, hidden))
)
def test_layers_of_every_width(hidden: tuple[int, ...]) -> None:
    settings = replace(
        VARIANTS["mlp"], hidden=hidden, dropout=(0.0,) * len(hidden), epochs=1, batch_size=40
    )
    begin = grown(settings)
    own = trained(PortableEngine, settings, examples(100), begin).weights()
    native = trained(NativeEngine, settings, examples(100), begin).weights()
    assert distance(own, native) < 1e-4
    assert distance(own, begin) > 1e-4


def test_the_epochs_fit_is_that_of_its_batches() -> None:
    """Loss and accuracy before each step, averaged over the examples, not over the batches."""
    settings = replace(VARIANTS["softmax"], batch_size=300, epochs=1, lr=1e-30)
    fits = [e(settings, grown(settings), CPU).train_epoch(examples(), 1) for e in ENGINES]
    begin = grown(settings)
    logits = forward(
        [begin["layers.0.weight"].double()],
        [begin["layers.0.bias"].double()],
        settings,
        examples().inputs,
        [],
    )
    for fit in fits:
        assert fit.loss == pytest.approx(float(cross_entropy(logits, examples().targets)), rel=1e-5)
        assert fit.accuracy == float((logits.argmax(1) == examples().targets).double().mean())


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["softmax", "dropout", "momentum", "one wide", "one image"])
def test_both_ways_to_a_product_train_the_same_bits(case: str) -> None:
    if case == "one wide":
        settings = replace(VARIANTS["momentum"], hidden=(1,))
    elif case == "one image":
        settings = replace(VARIANTS["dropout"], batch_size=1)
    else:
        settings = VARIANTS[case]
    n = 5 if case == "one image" else 640
    found = []
    for way in ("float64", "int8"):
        with multiply.products(way) as taken:
            engine = trained(PortableEngine, settings, examples(n), start(settings))
            logits = portable.outputs(engine.weights(), examples(50).inputs)
            found.append((engine.weights(), engine.fit(examples(50)), logits))
        assert not taken["int8"] or way == "int8"
    assert same_bits(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert torch.equal(found[0][2].view(torch.int64), found[1][2].view(torch.int64))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_training_twice(engine: type[Engine]) -> None:
    settings = VARIANTS["dropout"]
    first, second = (trained(engine, settings, examples(), start(settings)) for _ in range(2))
    assert same_bits(first.weights(), second.weights())


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_leaves_its_start_alone_and_its_weights_to_the_caller(
    engine: type[Engine],
) -> None:
    settings = replace(VARIANTS["mlp"], batch_size=64)
    begin, copy = start(settings), start(settings)
    found = engine(settings, begin, CPU)
    assert same_bits(found.weights(), copy)
    before = found.weights()
    found.train_epoch(examples(), 1)
    assert same_bits(begin, copy) and same_bits(before, copy)
    assert not same_bits(found.weights(), copy)
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in found.weights().values())


@pytest.mark.parametrize("seed", [1, 2**63 - 1])
def test_another_seed_is_another_training(seed: int) -> None:
    settings = replace(VARIANTS["dropout"], epochs=1)
    other = replace(settings, seed=seed)
    found = [trained(PortableEngine, s, examples(), start(settings)) for s in (settings, other)]
    assert not same_bits(found[0].weights(), found[1].weights())


@pytest.mark.parametrize("name", VARIANTS)
def test_sums_split_over_workers_train_the_same_bits(name: str) -> None:
    """Every product in three shards of its inner dimension (the batch, for the gradients)."""

    def sharded(a: Fixed, b: Fixed) -> Tensor:
        k = b.integers.shape[0]
        shards = (slice(k // 2, k), slice(0, k // 3), slice(k // 3, k // 2))
        parts = [a.integers[:, r].double() @ b.integers[r].double() for r in shards]
        return parts[0] + parts[1] + parts[2]

    settings = replace(VARIANTS[name], epochs=1)
    want = trained(PortableEngine, settings, examples(300), grown(settings)).weights()
    with mock.patch.object(exact, "multiply", sharded):
        got = trained(PortableEngine, settings, examples(300), grown(settings)).weights()
    assert same_bits(got, want)


def test_the_fit_does_not_depend_on_the_order_of_the_examples() -> None:
    settings = VARIANTS["dropout"]
    engine = PortableEngine(settings, grown(settings), CPU)
    shuffle = streams.permutation(640, 5)
    shuffled = Examples(inputs=examples().inputs[shuffle], targets=examples().targets[shuffle])
    fit = engine.fit(examples())
    assert engine.fit(shuffled) == fit
    with mock.patch.object(portable, "FIT_ROWS", 7):
        assert engine.fit(shuffled) == fit


@pytest.mark.parametrize("name", ["softmax", "mlp", "dropout"])
def test_the_logits_of_an_image_do_not_depend_on_its_neighbours(name: str) -> None:
    weights, images = grown(VARIANTS[name]), examples(60).inputs
    whole = portable.outputs(weights, images)
    assert whole.shape == (60, 10) and whole.dtype == torch.float64
    for rows in (slice(0, 1), slice(5, 6), slice(10, 33), slice(59, 60)):
        assert torch.equal(portable.outputs(weights, images[rows]), whole[rows])
    reverse = torch.arange(59, -1, -1)
    assert torch.equal(portable.outputs(weights, images[reverse]), whole[reverse])
    brighter = images.clone()
    brighter[30:] = 255
    assert torch.equal(portable.outputs(weights, brighter)[:30], whole[:30])
    with mock.patch.object(portable, "FIT_ROWS", 11):
        assert torch.equal(portable.outputs(weights, images), whole)


@pytest.mark.parametrize("name", ["softmax", "dropout"])
def test_no_images_have_no_logits(name: str) -> None:
    found = portable.outputs(grown(VARIANTS[name]), examples(60).inputs[:0])
    assert found.shape == (0, 10) and found.dtype == torch.float64


def test_logits_are_those_of_the_book() -> None:
    settings = VARIANTS["dropout"]
    begin = grown(settings)
    layers = range(3)
    want = forward(
        [begin[f"layers.{i}.weight"].double() for i in layers],
        [begin[f"layers.{i}.bias"].double() for i in layers],
        replace(settings, dropout=(0.0, 0.0)),
        examples(50).inputs,
        [],
    )
    got = portable.outputs(begin, examples(50).inputs)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-3 * want.abs().max().item())


@pytest.mark.parametrize("engine", ENGINES)
def test_rare_dropout_is_nearly_none(engine: type[Engine]) -> None:
    """A probability that rounds to never must not round to always."""
    none = replace(VARIANTS["mlp"], epochs=1)
    rare = replace(none, dropout=(1e-6,))
    found = [trained(engine, s, examples(), grown(none)).weights() for s in (none, rare)]
    assert distance(*found) < 1e-3


# --- divergence -------------------------------------------------------------------------------


def split(n: int) -> Any:
    data = examples(n)
    return SimpleNamespace(images=data.inputs.numpy(), labels=data.targets.numpy().astype(np.uint8))


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_divergence_is_told_with_the_rate(numerics: str) -> None:
    settings = replace(
        VARIANTS["mlp"], hidden=(16,), lr=1e30, batch_size=64, numerics=numerics, epochs=3
    )
    with pytest.raises(UserError, match=r"diverged.*learning rate.*1e\+30"):
        loop.train(settings, split(640), split(0), device="cpu")


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_divergence_in_the_very_last_step_is_told_too(numerics: str) -> None:
    """Its loss would be the next epoch's, which never comes."""
    settings = replace(
        VARIANTS["softmax"], lr=1e38, weight_decay=1e4, batch_size=64, numerics=numerics, epochs=1
    )
    with pytest.raises(UserError, match="diverged"):
        loop.train(settings, split(64), split(0), device="cpu")


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_a_high_rate_that_stays_finite_is_no_divergence(numerics: str) -> None:
    settings = replace(VARIANTS["softmax"], lr=1e6, numerics=numerics)
    weights = loop.train(settings, split(640), split(0), device="cpu").weights
    assert all(torch.isfinite(t).all() for t in weights.values())
