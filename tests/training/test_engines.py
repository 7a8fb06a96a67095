"""Both engines against float64 autograd and each other."""

import functools
import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

import oracles
from oracles import HIDDEN, LINEAR, distance, train
from refashion import selftest
from refashion.portable import streams
from refashion.training import digest, initial, portable
from refashion.training.engine import Examples, batches, mask, order
from refashion.training.initial import Weights
from refashion.training.loop import Engine
from refashion.training.native import NativeEngine
from refashion.training.portable import PortableEngine
from refashion.training.settings import Settings

CPU = torch.device("cpu")
VARIANTS = {n: selftest.INSTANCES[n] for n in ("softmax", "mlp", "dropout", "momentum")}
# Grids of 14 bits: 2**-14 = 6e-5; a hidden unit close to 0 may fall on its other side.
# Measured: 7e-5, 1.9e-3, 3.1e-3, 1.5e-4.
GRADIENT_TOLERANCE = {"softmax": 2e-4, "mlp": 5e-3, "dropout": 8e-3, "momentum": 5e-4}
# Relative to the weights' norm after 50 steps. Measured: 7.8e-6, 8.1e-4, 1.2e-2, 2.1e-3.
TRAJECTORY_TOLERANCE = {"softmax": 3e-5, "mlp": 3e-3, "dropout": 3e-2, "momentum": 6e-3}
both_engines = pytest.mark.parametrize("engine", [PortableEngine, NativeEngine])


@functools.cache
def images(n: int = 640) -> Examples:
    return selftest.examples(CPU)[:n]


def grown(settings: Settings) -> Weights:
    """Weights under which every layer's gradient has a usual size; biases that are not zero."""
    weights = {}
    for name, tensor in initial.of(settings).items():
        if name.endswith("weight"):
            weights[name] = tensor * 8
        else:
            key = streams.key(99, streams.Purpose.SELFTEST, int(name.split(".")[1]))
            weights[name] = streams.normal(tuple(tensor.shape), key).to(torch.float32) * 0.1
    return weights


def trained(
    engine: type[Engine], settings: Settings, examples: Examples, start: Weights
) -> Weights:
    model = engine([settings], [start], CPU)
    for epoch in range(1, settings.epochs + 1):
        model.train_epoch([examples], epoch)
    return model.weights()[0]


def reference(settings: Settings, examples: Examples, start: Weights) -> Weights:
    """The same training by float64 autograd and ``torch.optim.SGD``."""
    parameters = {name: tensor.double().requires_grad_() for name, tensor in start.items()}
    of_kind = {
        kind: [p for name, p in parameters.items() if name.endswith(kind)]
        for kind in ("weight", "bias")
    }
    optimizer = torch.optim.SGD(
        [
            {"params": of_kind["weight"], "weight_decay": settings.weight_decay},
            {"params": of_kind["bias"]},
        ],
        lr=settings.lr,
        momentum=settings.momentum,
    )
    for epoch in range(1, settings.epochs + 1):
        indices = order(settings, len(examples), epoch, CPU)
        for rows in batches(len(examples), settings.batch_size):
            masks = [
                mask(settings, rows, epoch, layer, CPU) / streams.keep_probability(p) if p else 1
                for layer, p in enumerate(settings.dropout)
            ]
            logits = oracles.outputs(parameters, examples.inputs[indices[rows]], masks)
            optimizer.zero_grad()
            oracles.loss(logits, examples.targets[indices[rows]]).backward()
            optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}


# --- gradients --------------------------------------------------------------------------------


@both_engines
@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_follows_autograds_gradient(engine: type[Engine], name: str) -> None:
    settings = replace(
        VARIANTS[name], lr=1.0, momentum=0.0, weight_decay=0.0, epochs=1, batch_size=200
    )
    start = grown(settings)
    moved = trained(engine, settings, images(200), start)
    want = reference(settings, images(200), start)
    for tensor in start:
        gradient = start[tensor].double() - moved[tensor].double()
        expected = start[tensor].double() - want[tensor]
        assert expected.norm() > 1e-3
        assert (gradient - expected).norm() < GRADIENT_TOLERANCE[name] * expected.norm(), tensor


# A seed with which no unit is so close to 0 that rounding puts it on the other side.
PIXELS = Settings(hidden=(12, 8), dropout=(0.3, 0.3), initialisation="he", seed=1)


@both_engines
@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (PIXELS, 1e-3),
        (Settings(), 1e-3),
        (HIDDEN, 1e-5),
        (LINEAR, 1e-5),
        (replace(LINEAR, num_outputs=3), 1e-5),
    ],
    ids=["pixels, hidden", "pixels", "features, hidden", "features", "three numbers"],
)
def test_gradients_without_dropout_are_autograds(
    engine: type[Engine], settings: Settings, tolerance: float
) -> None:
    examples = oracles.numbers(settings, 100) if settings.loss == "squared" else images(100)
    start = initial.of(settings)
    model = engine([settings], [start], CPU)
    got, want = model.gradients(examples), oracles.gradients(start, examples)
    assert list(got) == list(want)
    for name in want:
        assert got[name].dtype == torch.float32 and got[name].shape == start[name].shape
        assert want[name].norm() > 1e-3
        assert (got[name] - want[name]).norm() < tolerance * want[name].norm(), name


@both_engines
def test_asking_for_gradients_changes_no_training(engine: type[Engine]) -> None:
    settings = replace(HIDDEN, optimizer="adam")
    start, examples = initial.of(settings), oracles.numbers(settings, 23)
    asked, plain = (engine([settings], [start], CPU) for _ in range(2))
    for epoch in (1, 2):
        asked.gradients(examples)
        for model in (asked, plain):
            model.train_epoch([examples], epoch)
    assert digest.weights(*asked.weights()) == digest.weights(*plain.weights())


# --- trajectories -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_both_engines_go_the_same_way(name: str) -> None:
    """Fifty steps from the same start, with float64 as the umpire."""
    settings = replace(VARIANTS[name], batch_size=64, epochs=5)
    start, tolerance = initial.of(settings), TRAJECTORY_TOLERANCE[name]
    native, portable_ = (
        trained(engine, settings, images(), start) for engine in (NativeEngine, PortableEngine)
    )
    want = reference(settings, images(), start)
    assert distance(start, want) > 0.3  # they went somewhere
    assert distance(native, want) < 1e-5
    assert distance(portable_, want) < tolerance
    assert distance(portable_, native) < tolerance


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("kind", [LINEAR, HIDDEN], ids=["linear", "hidden"])
def test_both_engines_learn_the_same_numbers(
    kind: Settings, optimizer: str, weight_decay: float
) -> None:
    changes = {
        "sgd": {},
        "momentum": {"momentum": 0.9, "lr": 0.01},
        "adam": {"optimizer": "adam", "lr": 0.01},
    }
    settings = replace(kind, weight_decay=weight_decay, **changes[optimizer])
    portable_, native = train(
        *(oracles.model(replace(settings, numerics=n)) for n in ("portable", "native"))
    )
    assert distance(initial.of(settings), native.weights) > 0.05  # they went somewhere
    assert distance(portable_.weights, native.weights) < 1e-4
    for row, other in zip(portable_.history, native.history, strict=True):
        assert row.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert row.validation_loss == pytest.approx(other.validation_loss, rel=1e-4)
        assert math.isnan(row.train_accuracy) and math.isnan(other.train_accuracy)


@both_engines
@pytest.mark.parametrize(
    ("batch_size", "n"),
    [(1, 7), (1, 1), (64, 64), (64, 65), (100, 250), (1000, 300)],
    ids=["one", "one of one", "whole", "last of one", "last smaller", "more than there is"],
)
@pytest.mark.parametrize("name", ["softmax", "dropout"])
def test_batches_of_every_size(engine: type[Engine], name: str, batch_size: int, n: int) -> None:
    narrow = (32,) * len(VARIANTS[name].hidden)
    settings = replace(VARIANTS[name], hidden=narrow, lr=0.05, batch_size=batch_size, epochs=1)
    model = engine([settings], [grown(settings)], CPU)
    (metrics,) = model.train_epoch([images(n)], 1)
    want = reference(settings, images(n), grown(settings))
    assert distance(*model.weights(), want) < GRADIENT_TOLERANCE[name] * -(-n // batch_size)
    assert np.isfinite(metrics.loss) and 0 <= metrics.accuracy <= 1


@pytest.mark.parametrize("hidden", [(1,), (1, 1), (4096,), (3, 1, 2)], ids=str)
def test_layers_of_every_width(hidden: tuple[int, ...]) -> None:
    settings = Settings(hidden=hidden, epochs=1, batch_size=40)
    start = grown(settings)
    portable_ = trained(PortableEngine, settings, images(100), start)
    assert distance(portable_, trained(NativeEngine, settings, images(100), start)) < 1e-4
    assert distance(portable_, start) > 1e-4


@both_engines
def test_the_epochs_metrics_are_those_of_its_batches(engine: type[Engine]) -> None:
    """Loss and accuracy before each step, averaged over the examples, not over the batches."""
    settings = Settings(batch_size=300, lr=1e-30)
    (metrics,) = engine([settings], [grown(settings)], CPU).train_epoch([images()], 1)
    logits = oracles.outputs(grown(settings), images().inputs)
    assert metrics.loss == pytest.approx(float(oracles.loss(logits, images().targets)), rel=1e-5)
    assert metrics.accuracy == float((logits.argmax(1) == images().targets).double().mean())


# --- the same bits ----------------------------------------------------------------------------


def test_metrics_do_not_depend_on_the_order_of_the_examples() -> None:
    settings = VARIANTS["dropout"]
    model, shuffle = PortableEngine([settings], [grown(settings)], CPU), streams.permutation(640, 5)
    shuffled = Examples(inputs=images().inputs[shuffle], targets=images().targets[shuffle])
    metrics = model.evaluate([images()])
    assert model.evaluate([shuffled]) == metrics
    with mock.patch.object(portable, "EVAL_ROWS", 7):
        assert model.evaluate([shuffled]) == metrics


@pytest.mark.parametrize("name", ["softmax", "mlp", "dropout"])
def test_the_logits_of_an_image_do_not_depend_on_its_neighbours(name: str) -> None:
    weights, inputs = grown(VARIANTS[name]), images(60).inputs
    whole = portable.outputs(weights, inputs)
    want = oracles.outputs(weights, inputs)
    assert whole.shape == (60, 10) and whole.dtype == torch.float64
    torch.testing.assert_close(whole, want, rtol=0, atol=1e-3 * want.abs().max().item())
    for rows in (slice(0, 0), slice(0, 1), slice(5, 6), slice(10, 33), slice(59, 60)):
        assert torch.equal(portable.outputs(weights, inputs[rows]), whole[rows])
    assert torch.equal(portable.outputs(weights, inputs.flip(0)), whole.flip(0))
    brighter = inputs.clone()
    brighter[30:] = 255
    assert torch.equal(portable.outputs(weights, brighter)[:30], whole[:30])
    with mock.patch.object(portable, "EVAL_ROWS", 11):
        assert torch.equal(portable.outputs(weights, inputs), whole)
