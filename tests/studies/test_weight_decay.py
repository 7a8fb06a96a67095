"""Weight decay: the study at a small size, recomputed from what it trained."""

import hashlib
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

import oracles
import tiny
from refashion.base.workspace import Workspace
from refashion.studies import weight_decay
from refashion.studies.weight_decay import draw
from refashion.training.loop import Model
from refashion.training.settings import Settings

PARAMS = tiny.params().studies.weight_decay
SEEDS = (5, 6, 7)
ORDERS = {"l0": 0, "l1": 1, "l2": 2, "linf": math.inf}


def run(root: Path, **changes: Any) -> tiny.Result:
    return tiny.run(weight_decay, Workspace(root), tiny.params("weight_decay", **changes))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tiny.Result:
    return run(tmp_path_factory.mktemp("decay"))


def test_every_penalty_is_a_run_on_the_same_examples(result: tiny.Result) -> None:
    digests = {}
    for i, part in enumerate(("train", "test")):
        tensors = [
            t for seed in SEEDS for e in [draw(PARAMS, seed)[i]] for t in (e.inputs, e.targets)
        ]
        digests[part] = hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()
    assert list(result.runs) == ["decay_0", "decay_3"]
    for penalty, run in zip((0.0, 3.0), result.runs.values(), strict=True):
        settings = Settings(
            **{"lr": 0.003, "seed": 5, "epochs": 4, "batch_size": 5, "weight_decay": penalty},
            **{"num_inputs": 30, "num_outputs": 1, "initialisation": "unit_normal"},
            loss="squared",
        )
        sizes = {"seeds": 3, "num_train": 12, "num_test": 20}
        assert run.record.params == {**settings.as_dict(), **sizes}
        assert run.record.inputs == digests and run.record.parent is None
        assert run.record.stage == "study@weight_decay"


def test_runs_are_named_by_their_penalties(tmp_path: Path) -> None:
    names = list(run(tmp_path, weight_decays=(0.25, 1e-5), epochs=1, seeds=1).runs)
    assert names == ["decay_0.25", "decay_1e-05"]


def test_metrics_are_those_of_the_trained_weights(result: tiny.Result) -> None:
    for name, run in result.runs.items():
        values: dict[str, list[float]] = {name: [] for name in (*ORDERS, "test_loss")}
        for seed, training in zip(SEEDS, result.trainings[name], strict=True):
            for norm, order in ORDERS.items():
                weight = training.weights["layers.0.weight"].double().flatten()
                values[norm].append(float(torch.linalg.vector_norm(weight, order)))
            test = draw(PARAMS, seed)[1]
            outputs = oracles.outputs(training.weights, test.inputs)
            values["test_loss"].append(float(oracles.loss(outputs, test.targets)))
        assert run.metrics["seeds"] == 3
        for measure, numbers in values.items():
            assert run.metrics[measure] == pytest.approx(statistics.mean(numbers), rel=1e-4)
            expected = statistics.stdev(numbers)
            assert run.metrics[f"{measure}_std"] == pytest.approx(expected, rel=2e-3)
        assert result.headline["test_loss"][name] == run.metrics["test_loss"]


def test_a_training_is_that_of_its_settings_and_examples(result: tiny.Result) -> None:
    for trainings in result.trainings.values():
        for seed, training in zip(SEEDS, trainings, strict=True):
            train, test = draw(PARAMS, seed)
            model = Model(settings=training.settings, train=train, validation=test)
            assert oracles.train(model)[0].digest == training.digest
            assert training.settings.seed == seed


def test_examples_are_drawn_as_the_book_has_it() -> None:
    p = PARAMS.model_copy(update={"train": 1500, "test": 500})
    train, test = draw(p, 0)
    assert (len(train), len(test)) == (1500, 500)
    for part in (train, test):
        assert part.inputs.dtype == torch.float32 and part.targets.dtype == torch.float64
        assert part.inputs.mean().item() == pytest.approx(0, abs=0.05)
        assert part.inputs.std().item() == pytest.approx(1, rel=0.05)
        noise = part.targets - (0.05 + 0.01 * part.inputs.double().sum(1, keepdim=True))
        assert noise.mean().item() == pytest.approx(0, abs=0.002)
        assert noise.std().item() == pytest.approx(0.01, rel=0.15)
    assert not torch.equal(train.inputs[:500], test.inputs)
    assert not torch.equal(draw(p, 1)[0].inputs, train.inputs)


def test_decay_shrinks_the_weights_and_helps_unseen_examples(tmp_path: Path) -> None:
    """The finding of the book: fewer examples than inputs are learnt by heart."""
    runs = run(tmp_path, train=10, inputs=40, epochs=60, lr=0.01).runs.values()
    none, much = (run.metrics for run in runs)
    assert none["train_loss"] < 0.05 * none["test_loss"]
    assert much["test_loss"] < 0.1 * none["test_loss"]
    for norm in ("l1", "l2", "linf"):
        assert much[norm] < 0.5 * none[norm]
    assert none["l0"] == 40  # decay makes weights small, not zero
