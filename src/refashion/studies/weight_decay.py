"""Linear regression with more inputs than examples, with and without weight decay (book, 4.5)."""

from dataclasses import replace
from hashlib import sha256

import torch

from refashion.base.params import Params
from refashion.base.params.studies import WeightDecayParams
from refashion.base.workspace import Workspace
from refashion.portable import exact, streams
from refashion.portable.streams import Purpose
from refashion.studies import study
from refashion.studies.study import Headline, Measures
from refashion.training import norms
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Model, Row
from refashion.training.settings import Settings

NAME = "weight_decay"
TITLE = "Weight decay"
NOTES = (
    "Linear regression on fewer examples than inputs (book, section 4.5). Without a penalty it "
    "learns its examples by heart and nothing else; with one, the weights stay small and the "
    "error on new examples falls.",
    "Losses are half the squared error, means over the seeds; each seed has examples, initial "
    "weights and batches of its own.",
)
TRUE_WEIGHT, TRUE_BIAS, NOISE = 0.01, 0.05, 0.01
BITS = 22


def run(workspace: Workspace, params: Params) -> Headline:
    """Train every penalty on the same examples, seed by seed, and give the test losses.

    Each penalty is a run. Histories hold means over the seeds: losses (half the squared error; of
    the training examples as they went into their steps) and the norms of the weights.
    """
    p = params.studies.weight_decay
    seeds = range(params.seed, params.seed + p.seeds)
    examples = [draw(p, seed) for seed in seeds]
    inputs = {
        "train": _digest([train for train, _ in examples]),
        "test": _digest([test for _, test in examples]),
    }
    settings = Settings(
        lr=p.lr,
        epochs=p.epochs,
        batch_size=p.batch_size,
        numerics=params.numerics,
        num_inputs=p.inputs,
        num_outputs=1,
        initialisation="unit_normal",
        loss="squared",
    )
    test_losses = {}
    for weight_decay in p.weight_decays:
        name = "decay_" + repr(weight_decay).removesuffix(".0")
        models = [
            Model(
                settings=replace(settings, seed=seed, weight_decay=weight_decay),
                train=train,
                validation=test,
            )
            for seed, (train, test) in zip(seeds, examples, strict=True)
        ]
        trained = study.train(f"{NAME}/{name}", models, params.device, observe)
        metrics = {"seeds": len(seeds), **study.last_measures(trained)}
        sizes = {"seeds": len(seeds), "num_train": p.train, "num_test": p.test}
        study.write_run(
            workspace,
            f"{NAME}/{name}",
            trained,
            data={"dataset": "synthetic"},
            inputs=inputs,
            params={**models[0].settings.as_dict(), **sizes},
            metrics=metrics,
        )
        test_losses[name] = metrics["test_loss"]
    return {"test_loss": test_losses}


def observe(row: Row, weights: Weights) -> Measures:
    """Losses and norms of the weights."""
    return {
        "train_loss": row.train_loss,
        "test_loss": row.validation_loss,
        "l0": norms.l0(weights),
        "l1": norms.l1(weights),
        "l2": row.weight_norm,
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
    examples = Examples(inputs=inputs, targets=targets)
    return examples[: p.train], examples[p.train :]


def _digest(examples: list[Examples]) -> str:
    """SHA-256 of the little-endian bytes of every seed's examples."""
    sha = sha256()
    for part in examples:
        sha.update(part.inputs.numpy().astype("<f4", copy=False).tobytes())
        sha.update(part.targets.numpy().astype("<f8", copy=False).tobytes())
    return sha.hexdigest()
