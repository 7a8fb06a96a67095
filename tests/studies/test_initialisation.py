"""Where weights start: the study at a small size, against autograd."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from refashion.base.errors import UserError
from refashion.base.params.studies import InitialisationParams
from refashion.data import prepared
from refashion.data.prepared import Split
from refashion.studies import initialisation
from refashion.studies.arm import Arm
from refashion.studies.initialisation import Gradient
from refashion.training import initial, loop
from refashion.training.settings import Settings

SEED = 2
SMALL = InitialisationParams(depths=3, width=8, images=40, lr=0.1, batch_size=16, epochs=2)
SCHEMES = ["constant", "small_normal", "unit_normal", "xavier", "he"]


def split(n: int = 60) -> Split:
    rng = np.random.default_rng(0)
    labels = np.arange(n, dtype=np.uint8) % 10
    images = rng.integers(0, 128, (n, 784), dtype=np.uint8)
    images[np.arange(784) // 78 == labels[:, None]] += 100  # bright pixels betray the label
    return Split(images=images, labels=labels)


def run(numerics: str = "portable", **changes: Any) -> tuple[list[Arm], list[Gradient]]:
    p = SMALL.model_copy(update=changes)
    return initialisation.run(p, split(), SEED, numerics, "cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for one another take many times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def found() -> tuple[list[Arm], list[Gradient]]:
    return run()


def settings(scheme: str, depth: int) -> Settings:
    return Settings(
        hidden=(8,) * depth,
        dropout=(0.0,) * depth,
        lr=0.1,
        seed=SEED,
        epochs=2,
        batch_size=16,
        weight_decay=0.0,
        momentum=0.0,
        numerics="portable",
        initialisation=scheme,
    )


def norms_by_autograd(s: Settings) -> list[float]:
    """Of the gradients of every layer's weights at the start, in float64."""
    start = initial.weights(s.widths, s.seed, s.initialisation)
    parameters = {name: tensor.double().requires_grad_() for name, tensor in start.items()}
    h = torch.from_numpy(split().images[:40]).double() / 255
    depth = len(s.hidden)
    for i in range(depth + 1):
        h = h @ parameters[f"layers.{i}.weight"] + parameters[f"layers.{i}.bias"]
        h = torch.relu(h) if i < depth else h
    loss = cross_entropy(h, torch.from_numpy(split().labels[:40]).long())
    weights: list[Tensor] = [parameters[f"layers.{i}.weight"] for i in range(depth + 1)]
    return [float(gradient.norm()) for gradient in torch.autograd.grad(loss, weights)]


def test_arms_are_the_schemes(found: Any) -> None:
    arms, _ = found
    assert [arm.name for arm in arms] == SCHEMES == list(initialisation.SCHEMES)
    for arm in arms:
        assert arm.params == {**settings(arm.name, 3).as_dict(), "depths": 3, "images": 40}
        assert [len(t.weights) for t in arm.trainings] == [4, 6, 8]
        assert arm.parent is None


def test_only_the_first_images_are_learnt(found: Any) -> None:
    images, labels = split().images, split().labels
    digest = prepared.digest(Split(images=images[:40], labels=labels[:40]))
    assert all(arm.inputs == {"train": digest} for arm in found[0])
    fewer = Split(images=images[:40], labels=labels[:40])
    arms, gradients = initialisation.run(SMALL, fewer, SEED, "portable", "cpu")
    assert gradients == found[1]
    for arm, other in zip(arms, found[0], strict=True):
        assert arm.history == other.history and arm.metrics == other.metrics


def test_more_images_than_there_are() -> None:
    with pytest.raises(
        UserError, match=r"^studies\.initialisation\.images: 61 is more than the 60"
    ):
        run(images=61)


def test_there_is_a_gradient_of_every_scheme_depth_and_layer(found: Any) -> None:
    arms, gradients = found
    assert [(g.arm, g.depth, g.layer) for g in gradients] == [
        (scheme, depth, layer)
        for scheme in SCHEMES
        for depth in (1, 2, 3)
        for layer in range(1, depth + 2)
    ]
    for arm in arms:
        own = [list(astuple(g)) for g in gradients if g.arm == arm.name]
        digest = hashlib.sha256(json.dumps(own).encode()).hexdigest()
        assert arm.outputs == {"gradients": digest}
        assert arm.metrics["first_gradient"] == own[-4][3]
        assert arm.metrics["last_gradient"] == own[-1][3]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_are_autograds(found: Any, scheme: str) -> None:
    for depth in (1, 2, 3):
        norms = [g.norm for g in found[1] if (g.arm, g.depth) == (scheme, depth)]
        want = norms_by_autograd(settings(scheme, depth))
        if scheme == "constant":  # errors of a softmax add up to 0, and equal weights add them
            assert max(want[:-1]) < 1e-12
            assert max(norms[:-1]) < 1e-3  # what rounding leaves
            want, norms = want[-1:], norms[-1:]
        assert norms == pytest.approx(want, rel=1e-2)


def test_history_holds_the_loss_of_every_depth(found: Any) -> None:
    for arm in found[0]:
        assert len(arm.history) == 2
        for epoch, row in enumerate(arm.history):
            assert row == {
                f"loss_depth_{depth}": training.history[epoch].train_loss
                for depth, training in enumerate(arm.trainings, start=1)
            }


def test_metrics_are_those_of_the_deepest_network(found: Any) -> None:
    for arm in found[0]:
        deepest = arm.trainings[-1]
        columns = deepest.weights["layers.0.weight"].T.tolist()
        assert arm.metrics["epochs"] == 2
        assert arm.metrics["loss"] == deepest.history[-1].train_loss
        assert arm.metrics["accuracy"] == deepest.history[-1].train_accuracy
        assert arm.metrics["distinct_units"] == len({tuple(column) for column in columns})


def test_each_training_is_the_one_it_would_be_alone(found: Any) -> None:
    chosen = Split(images=split().images[:40], labels=split().labels[:40])
    nothing = Split(images=split().images[:0], labels=split().labels[:0])
    for arm in found[0]:
        for depth, training in enumerate(arm.trainings, start=1):
            alone = loop.train(settings(arm.name, depth), chosen, nothing, device="cpu")
            assert repr(training.history) == repr(alone.history)


def test_units_that_start_alike_stay_alike(found: Any) -> None:
    """The symmetry of the book (4.8), which no gradient breaks."""
    units = {arm.name: arm.metrics["distinct_units"] for arm in found[0]}
    assert units == {scheme: 1 if scheme == "constant" else 8 for scheme in SCHEMES}


def test_small_weights_lose_the_gradient_and_he_keeps_it() -> None:
    metrics = {arm.name: arm.metrics for arm in run(depths=6, width=24, epochs=1)[0]}
    first = {scheme: own["first_gradient"] for scheme, own in metrics.items()}
    assert first["small_normal"] < 1e-6 < 0.1 < first["he"] < 100 < first["unit_normal"]


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_a_network_that_diverges_leaves_a_shorter_history(numerics: str) -> None:
    """Not an error: it is what the study is about."""
    arms, gradients = run(numerics, lr=1e10, epochs=3, batch_size=40)
    assert len(gradients) == 5 * (2 + 3 + 4)
    (wild,) = (arm for arm in arms if arm.name == "unit_normal")
    lengths = [len(training.history) for training in wild.trainings]
    assert lengths[-1] < 3
    if numerics == "portable":  # the same everywhere
        assert lengths == [3, 2, 1]
    assert len(wild.history) == max(lengths)
    for epoch, row in enumerate(wild.history):
        left = [d for d, length in enumerate(lengths, start=1) if length > epoch]
        assert list(row) == [f"loss_depth_{depth}" for depth in left]
    assert wild.metrics["epochs"] == lengths[-1]
    assert ("loss" in wild.metrics) == ("accuracy" in wild.metrics) == (lengths[-1] > 0)
    for arm in arms:
        assert all(np.isfinite(list(row.values())).all() for row in (*arm.history, arm.metrics))


def test_a_network_that_diverges_at_once() -> None:
    arms, _ = run(lr=1e38, depths=2, epochs=1)
    (wild,) = (arm for arm in arms if arm.name == "unit_normal")
    assert wild.metrics["epochs"] == 0 and wild.history == []
    assert set(wild.metrics) == {"epochs", "first_gradient", "last_gradient", "distinct_units"}
    start = initial.weights((784, 8, 8, 10), SEED, "unit_normal")
    for name, tensor in wild.trainings[-1].weights.items():
        assert torch.equal(tensor, start[name])


def test_torch_finds_the_same(found: Any) -> None:
    arms, gradients = run("native")
    for own, native in zip(found[1], gradients, strict=True):
        if own.arm != "constant" or own.layer > own.depth:
            assert own.norm == pytest.approx(native.norm, rel=1e-2)
    for arm, other in zip(found[0], arms, strict=True):
        assert other.trainings[0].contract == "native/cpu"
        if arm.name != "unit_normal":  # which is chaotic
            assert arm.metrics["loss"] == pytest.approx(other.metrics["loss"], rel=1e-2)
