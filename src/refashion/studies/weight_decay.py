"""Linear regression with more inputs than examples, with and without weight decay (book, 4.5)."""

from hashlib import sha256

import torch
from torch import Tensor

from refashion.base.params.studies import WeightDecayParams
from refashion.portable import exact, streams
from refashion.portable.streams import Purpose
from refashion.studies.arm import Arm, Trainer, last, over
from refashion.studies.history import Row
from refashion.training import norms
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Epoch
from refashion.training.settings import Settings

NAME = "weight_decay"
TRUE_WEIGHT, TRUE_BIAS, NOISE = 0.01, 0.05, 0.01
BITS = 22


def run(p: WeightDecayParams, seed: int, numerics: str, device: str) -> list[Arm]:
    """Train every penalty on the same examples, seed by seed.

    Returns
    -------
    list of Arm
        One a penalty. Its history holds means over the seeds: losses (half the squared error; of
        the training examples as they went into their steps) and the norms of the weights; its
        metrics are those of the last epoch, with their spread.
    """
    seeds = range(seed, seed + p.seeds)
    data = {s: draw(p, s) for s in seeds}
    sizes = {"num_train": p.train, "num_test": p.test}
    inputs = {"train": _digest(data, 0), "test": _digest(data, 1)}
    arms = []
    with Trainer(NAME, len(seeds) * len(p.weight_decays)) as trainer:
        for weight_decay in p.weight_decays:
            settings = [_settings(p, weight_decay, s, numerics) for s in seeds]
            trainings, rows = trainer.train(settings, list(data.values()), device, observe)
            arms.append(
                Arm(
                    name="decay_" + repr(weight_decay).removesuffix(".0"),
                    params={**settings[0].as_dict(), "seeds": len(seeds), **sizes},
                    inputs=inputs,
                    trainings=trainings,
                    history=over(rows),
                    metrics={"seeds": len(seeds), **last(rows)},
                )
            )
    return arms


def observe(model: int, epoch: Epoch, weights: Weights) -> Row:
    """Losses, and the norms of the weights."""
    return {
        "train_loss": epoch.train_loss,
        "test_loss": epoch.validation_loss,
        "l0": norms.l0(weights),
        "l1": norms.l1(weights),
        "l2": epoch.weight_norm,
        "linf": norms.linf(weights),
    }


def draw(p: WeightDecayParams, seed: int) -> tuple[Examples, Examples]:
    """Training and test examples of ``y = 0.05 + sum 0.01 x + noise``.

    Inputs are standard normal, the noise normal with a standard deviation of 0.01.
    """
    n = p.train + p.test
    inputs = streams.normal((n, p.inputs), streams.key(seed, Purpose.EXAMPLES, 0))
    noise = streams.normal((n, 1), streams.key(seed, Purpose.EXAMPLES, 1)) * NOISE
    inputs = inputs.to(torch.float32)
    weights = torch.full((p.inputs, 1), TRUE_WEIGHT, dtype=torch.float64)
    targets = exact.product(exact.quantise(inputs, BITS), exact.quantise(weights, BITS))
    targets.add_(TRUE_BIAS).add_(noise)
    parts = zip(inputs.split([p.train, p.test]), targets.split([p.train, p.test]), strict=True)
    train, test = (Examples(inputs=x, targets=y) for x, y in parts)
    return train, test


def _settings(p: WeightDecayParams, weight_decay: float, seed: int, numerics: str) -> Settings:
    return Settings(
        hidden=(),
        dropout=(),
        lr=p.lr,
        seed=seed,
        epochs=p.epochs,
        batch_size=p.batch_size,
        weight_decay=weight_decay,
        momentum=0.0,
        numerics=numerics,
        num_inputs=p.inputs,
        num_outputs=1,
        initialisation="unit_normal",
        loss="squared",
    )


def _digest(data: dict[int, tuple[Examples, Examples]], part: int) -> str:
    """SHA-256 of the bytes of one part of every seed's examples."""
    sha = sha256()
    for both in data.values():
        for tensor in (both[part].inputs, both[part].targets):
            sha.update(_bytes(tensor))
    return sha.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
