"""The epoch loop: rows and weights of models, whole or diverged."""

import math
from dataclasses import replace

import pytest
import torch

from oracles import train
from refashion import selftest
from refashion.base.errors import UserError
from refashion.training import digest, initial, loop
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Model, Training
from refashion.training.settings import Settings

CPU = torch.device("cpu")
MLP = Settings(hidden=(8,), batch_size=64, epochs=3)
IMAGES = selftest.examples(CPU)
engines = pytest.mark.parametrize("numerics", ["portable", "native"])


def model(settings: Settings = MLP, n: int = 200, watched: int = 100) -> Model:
    validation = IMAGES[200 : 200 + watched]
    return Model(settings=settings, train=IMAGES[:n], validation=validation)


def alone(model: Model) -> Training:
    (training,) = train(model)
    return training


def digests(training: Training) -> list[str]:
    return [row.weights_sha256 for row in training.history]


@engines
def test_a_row_is_of_the_weights_that_it_comes_with(numerics: str) -> None:
    pairs = list(loop.train([model(replace(MLP, numerics=numerics))], device="cpu"))
    assert [(row.model, row.epoch) for row, _ in pairs] == [(0, 1), (0, 2), (0, 3)]
    assert len({row.weights_sha256 for row, _ in pairs}) == 3
    for row, weights in pairs:  # still, though later epochs have been trained
        assert row.weights_sha256 == digest.weights(weights)
        tensors = [t.double().flatten() for name, t in weights.items() if name.endswith("weight")]
        assert row.weight_norm == pytest.approx(float(torch.cat(tensors).norm()), rel=1e-4)
        assert row.validation_loss < math.log(10) * 1.1
        assert 0 <= row.validation_accuracy <= 1


@engines
def test_nothing_to_watch(numerics: str) -> None:
    settings = replace(MLP, numerics=numerics)
    watched, unwatched = alone(model(settings)), alone(model(settings, watched=0))
    assert digests(unwatched) == digests(watched)  # watching teaches nothing
    for row in unwatched.history:
        assert math.isnan(row.validation_loss) and math.isnan(row.validation_accuracy)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(UserError, match=r"training set.*empty"):
        train(model(), model(n=0))


@pytest.mark.parametrize(("numerics", "want"), [("portable", "portable/2"), ("native", "native/")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_native_bits_depend_on_the_device(numerics: str, want: str, device: str) -> None:
    contract = loop.contract(Settings(numerics=numerics), torch.device(device))
    assert contract == (want + device if numerics == "native" else want)


# --- divergence -------------------------------------------------------------------------------


def finite(weights: Weights) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


@engines
def test_a_training_that_diverges_leaves_what_came_before(numerics: str) -> None:
    """A penalty so high that every step makes the weights 99 times as large."""
    settings = Settings(lr=1.0, weight_decay=100.0, batch_size=64, epochs=9, numerics=numerics)
    training = alone(model(settings))
    epochs = len(training.history)
    assert training.diverged and 0 < epochs < 9 and finite(training.weights)
    shorter = alone(model(replace(settings, epochs=epochs)))
    assert training.history == shorter.history and not shorter.diverged
    assert training.digest == digest.weights(training.weights) == shorter.digest


@engines
def test_divergence_at_once_leaves_the_start(numerics: str) -> None:
    training = alone(model(replace(MLP, lr=1e38, numerics=numerics)))
    assert training.diverged and training.history == []
    assert training.digest == digest.weights(initial.of(MLP))


@engines
def test_divergence_in_the_very_last_step(numerics: str) -> None:
    """Its loss would be the next epoch's, which never comes."""
    settings = Settings(lr=1e38, weight_decay=1e4, batch_size=64, epochs=1, numerics=numerics)
    assert alone(model(settings, n=64, watched=0)).diverged


@engines
@pytest.mark.parametrize("lr", [1e39, 1e300])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_rate_beyond_float32_is_a_divergence(numerics: str, lr: float, optimizer: str) -> None:
    """Torch itself refuses to convert it."""
    settings = replace(MLP, optimizer=optimizer, numerics=numerics)
    assert alone(model(replace(settings, lr=lr))).diverged
    decayed = alone(model(replace(settings, weight_decay=lr)))
    assert decayed.diverged or optimizer == "adam"  # whose steps are as long for any gradient


def test_a_validation_loss_beyond_all_bounds_is_a_divergence() -> None:
    """The last step leaves weights that are finite, and whose outputs are not."""
    settings = Settings(hidden=(256, 256), lr=1e24, batch_size=1000, epochs=1)
    watched, unwatched = (alone(model(settings, n=40, watched=n)) for n in (10, 0))
    assert not unwatched.diverged and finite(unwatched.weights)
    assert watched.diverged and watched.history == []


def test_a_loss_beyond_all_bounds_is_a_divergence_though_the_weights_are_finite() -> None:
    """The square of 1e25 is more than float32 holds."""
    settings = Settings(
        **{"lr": 1e-30, "num_inputs": 2, "num_outputs": 1, "loss": "squared"}, numerics="native"
    )
    far = Examples(inputs=torch.ones(3, 2), targets=torch.full((3, 1), 1e25, dtype=torch.float64))
    assert alone(Model(settings=settings, train=far, validation=far[:0])).history == []


@engines
def test_a_high_rate_that_stays_finite_is_no_divergence(numerics: str) -> None:
    training = alone(model(Settings(lr=1e6, epochs=2, numerics=numerics), n=640))
    assert not training.diverged and finite(training.weights)


def test_the_first_divergence_is_told_with_its_epoch_and_what_is_too_large() -> None:
    wild, tame = (Settings(lr=lr, epochs=2) for lr in (2e9, 0.1))
    row = next(loop.train([model(tame)], device="cpu"))[0]
    trainings = [
        Training(settings=settings, weights={}, history=[row] * epochs)
        for settings, epochs in ((tame, 2), (wild, 1), (wild, 0))
    ]
    loop.refuse_divergence("study/run", trainings[:1])
    with pytest.raises(UserError, match=r"^study/run: diverged in epoch 2 .* below 2e\+09$"):
        loop.refuse_divergence("study/run", trainings)
    heavy = Training(settings=Settings(lr=0.1, weight_decay=1e30), weights={}, history=[])
    with pytest.raises(UserError, match=r"diverged in epoch 1 .* use a weight decay below 10$"):
        loop.refuse_divergence("study/run", [heavy])
