"""House prices: the study on made-up tables, recomputed from what it trained."""

import csv
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refashion.base.errors import UserError
from refashion.base.params.studies import HouseModelParams, HousePricesParams
from refashion.data import houses, made_up, splits
from refashion.data.catalogue import HOUSE_FILES
from refashion.studies import house_prices
from refashion.studies.arm import Arm
from refashion.studies.house_prices import Submission
from refashion.training import digest, loop
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.settings import Settings

SEED = 3
MODELS = {
    "linear": HouseModelParams(hidden=(), optimizer="sgd", lr=0.1, epochs=4, weight_decay=0.01),
    "mlp": HouseModelParams(hidden=(5,), optimizer="adam", lr=0.1, epochs=4, log_price=True),
}
SMALL = HousePricesParams(dataset="made_up", folds=3, batch_size=32, models=MODELS)


def run(
    folder: Path, p: HousePricesParams = SMALL, numerics: str = "portable"
) -> tuple[list[Arm], Submission]:
    return house_prices.run(p, folder, SEED, numerics, "cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for one another take many times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both made-up tables."""
    found = tmp_path_factory.mktemp("houses")
    for name, text in made_up.tables().items():
        (found / name).write_text(text)
    return found


@pytest.fixture(scope="module")
def known(folder: Path) -> houses.Table:
    return houses.read_known(folder / HOUSE_FILES["train"])


@pytest.fixture(scope="module")
def found(folder: Path) -> tuple[list[Arm], Submission]:
    return run(folder)


def prices(weights: Weights, inputs: np.ndarray, model: HouseModelParams) -> np.ndarray:
    """What a model predicts, by numpy."""
    h = inputs.astype(np.float64)
    layers = len(model.hidden) + 1
    for i in range(layers):
        h = h @ weights[f"layers.{i}.weight"].double().numpy()
        h += weights[f"layers.{i}.bias"].double().numpy()
        h = np.maximum(h, 0) if i < layers - 1 else h
    return np.exp(h[:, 0]) if model.log_price else h[:, 0]


def error(predicted: np.ndarray, true: np.ndarray) -> float:
    """The book's: of the logarithms, nothing below a dollar."""
    return float(np.sqrt(np.mean((np.log(np.maximum(predicted, 1)) - np.log(true)) ** 2)))


def folds(known: houses.Table, k: int = 3) -> list[tuple[houses.Table, houses.Table]]:
    chosen = splits.folds(np.zeros(len(known.ids), dtype=np.int64), k, SEED)
    kept = [np.setdiff1d(np.arange(len(known.ids)), own) for own in chosen]
    return [(known.rows(a), known.rows(b)) for a, b in zip(kept, chosen, strict=True)]


def settings(model: HouseModelParams, num_inputs: int) -> Settings:
    return Settings(
        hidden=model.hidden,
        dropout=(0.0,) * len(model.hidden),
        lr=model.lr,
        seed=SEED,
        epochs=model.epochs,
        batch_size=32,
        weight_decay=model.weight_decay,
        momentum=0.0,
        numerics="portable",
        num_inputs=num_inputs,
        num_outputs=1,
        loss="squared",
        optimizer=model.optimizer,
    )


def test_arms_are_the_models(found: Any, known: houses.Table) -> None:
    arms, submission = found
    assert [arm.name for arm in arms] == ["linear", "mlp"]
    for arm, model in zip(arms, MODELS.values(), strict=True):
        expected = settings(model, 6).as_dict()
        assert arm.params == {**expected, "folds": 3, "log_price": model.log_price}
        assert arm.inputs["train"] == houses.digest(known)
        assert ("test" in arm.inputs) == (arm.name == submission.model)
        best = {"submission": submission.digest}
        assert arm.outputs == (best if arm.name == submission.model else {})
        assert len(arm.trainings) == 3 and len(arm.history) == model.epochs


def test_errors_are_those_of_the_predictions(found: Any, known: houses.Table) -> None:
    for arm, model in zip(found[0], MODELS.values(), strict=True):
        errors: dict[str, list[float]] = {"train_log_rmse": [], "validation_log_rmse": []}
        for training, tables in zip(arm.trainings, folds(known), strict=True):
            inputs = houses.features(*tables)
            for name, x, table in zip(errors, inputs, tables, strict=True):
                errors[name].append(error(prices(training.weights, x, model), table.prices))
        assert arm.metrics["folds"] == 3
        for name, values in errors.items():
            assert arm.metrics[name] == pytest.approx(statistics.mean(values), rel=1e-4)
            expected = statistics.stdev(values)
            assert arm.metrics[f"{name}_deviation"] == pytest.approx(expected, rel=1e-2)
            assert arm.history[-1][name] == arm.metrics[name]
        assert arm.history[-1]["validation_log_rmse"] < arm.history[0]["validation_log_rmse"]


def test_each_fold_learns_from_the_others_alone(found: Any, known: houses.Table) -> None:
    """Prices that are held out cannot have been seen: a training without them is the same."""
    for arm, model in zip(found[0], MODELS.values(), strict=True):
        for training, (kept, held_out) in zip(arm.trainings, folds(known), strict=True):
            assert not {*kept.ids} & {*held_out.ids}
            (inputs,) = houses.features(kept)
            targets = np.log(kept.prices) if model.log_price else kept.prices
            examples = Examples(
                inputs=torch.from_numpy(inputs), targets=torch.from_numpy(targets)[:, None]
            )
            nothing = Examples(inputs=examples.inputs[:0], targets=examples.targets[:0])
            alone = loop.train(settings(model, 6), examples, nothing, device="cpu")
            for name, tensor in training.weights.items():
                torch.testing.assert_close(alone.weights[name], tensor, rtol=1e-5, atol=1e-5)


def test_the_best_model_predicts_the_submission(
    found: Any, folder: Path, known: houses.Table
) -> None:
    arms, submission = found
    best = min(arms, key=lambda arm: arm.metrics["validation_log_rmse"])
    assert submission.model == best.name
    asked = houses.read_asked(folder / HOUSE_FILES["test"], known)
    assert submission.ids == [str(i) for i in range(241, 301)] == asked.ids.tolist()
    model = MODELS[best.name]
    inputs, of_asked = houses.features(known, asked)
    targets = np.log(known.prices) if model.log_price else known.prices
    examples = Examples(inputs=torch.from_numpy(inputs), targets=torch.from_numpy(targets)[:, None])
    nothing = Examples(inputs=examples.inputs[:0], targets=examples.targets[:0])
    weights = loop.train(settings(model, 6), examples, nothing, device="cpu").weights
    expected = prices(weights, of_asked, model)
    assert submission.prices == pytest.approx(expected.tolist(), rel=1e-4)


def test_whichever_model_is_best(folder: Path) -> None:
    """The same two models, one of them made worse."""
    for worse, better in (("linear", "mlp"), ("mlp", "linear")):
        models = {**MODELS, worse: MODELS[worse].model_copy(update={"lr": 1e-6, "epochs": 1})}
        _, submission = run(folder, SMALL.model_copy(update={"models": models}))
        assert submission.model == better


def test_the_submission_has_the_form_that_kaggle_takes(found: Any, tmp_path: Path) -> None:
    _, submission = found
    path = tmp_path / "deep" / "submission.csv"
    submission.write(path)
    content = path.read_bytes()
    assert b"\r" not in content and content.endswith(b"\n")
    header, *rows = csv.reader(content.decode().splitlines())
    assert header == ["Id", "SalePrice"]
    assert [row[0] for row in rows] == submission.ids
    assert [float(row[1]) for row in rows] == submission.prices
    assert len(rows) == 60


def test_houses_that_are_asked_for_change_no_arm(found: Any, folder: Path, tmp_path: Path) -> None:
    texts = made_up.tables()
    header, *rows = texts[HOUSE_FILES["test"]].splitlines()
    texts[HOUSE_FILES["test"]] = "\n".join([header, *rows[:2], "9,99999,1,Moon"]) + "\n"
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    arms, submission = run(tmp_path)
    assert submission.ids == ["241", "242", "9"]
    assert submission.prices[:2] == found[1].prices[:2]
    for arm, other in zip(arms, found[0], strict=True):
        assert arm.history == other.history and arm.metrics == other.metrics


def test_folds_that_know_different_numbers_of_values(tmp_path: Path) -> None:
    """A quarter of one house is unknown to the fold without it: a column of zeros stands in."""
    texts = made_up.tables()
    name = HOUSE_FILES["train"]
    assert texts[name].count("5,1930,NA,Hill") == 1
    texts[name] = texts[name].replace("5,1930,NA,Hill", "5,1930,NA,Moon")
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    known = houses.read_known(tmp_path / name)
    tables = folds(known)
    widths = [houses.features(*both)[0].shape[1] for both in tables]
    assert sorted(widths) == [6, 7, 7]
    arms, submission = run(tmp_path)
    for arm, model in zip(arms, MODELS.values(), strict=True):
        assert arm.params["num_inputs"] == 7
        errors = []
        for training, (kept, held_out), width in zip(arm.trainings, tables, widths, strict=True):
            assert training.weights["layers.0.weight"].shape[0] == 7
            inputs = houses.features(kept, held_out)[1]
            padded = np.pad(inputs, ((0, 0), (0, 7 - width)))
            errors.append(error(prices(training.weights, padded, model), held_out.prices))
        assert arm.metrics["validation_log_rmse"] == pytest.approx(
            statistics.mean(errors), rel=1e-4
        )
    assert len(submission.prices) == 60


@pytest.mark.parametrize("k", [2, 7])  # 240 houses: folds of 34 and 35 are no stack
def test_any_number_of_folds(folder: Path, known: houses.Table, k: int) -> None:
    arms, _ = run(folder, SMALL.model_copy(update={"folds": k}))
    for arm, model in zip(arms, MODELS.values(), strict=True):
        assert len(arm.trainings) == arm.metrics["folds"] == k
        assert len({digest.weights(training.weights) for training in arm.trainings}) == k
        errors = [
            error(prices(t.weights, houses.features(*both)[1], model), both[1].prices)
            for t, both in zip(arm.trainings, folds(known, k), strict=True)
        ]
        assert arm.metrics["validation_log_rmse"] == pytest.approx(
            statistics.mean(errors), rel=1e-4
        )


def test_the_same_again_and_close_to_torch(found: Any, folder: Path) -> None:
    arms, submission = run(folder)
    assert submission == found[1]
    for arm, other, native in zip(arms, found[0], run(folder, numerics="native")[0], strict=True):
        assert arm.history == other.history
        assert native.trainings[0].contract == "native/cpu"
        name = "validation_log_rmse"
        assert native.metrics[name] == pytest.approx(arm.metrics[name], rel=1e-2)


def test_log_rmse_is_numpys() -> None:
    rng = np.random.default_rng(0)
    true, predicted = np.exp(rng.normal(12, 0.5, (2, 50)))
    predicted[:3] = [-1e5, 0, 0.3]  # count as a dollar
    got = house_prices.log_rmse(torch.from_numpy(predicted), torch.from_numpy(true))
    assert got == pytest.approx(error(predicted, true), rel=1e-7)
    assert house_prices.log_rmse(torch.from_numpy(true), torch.from_numpy(true)) == 0


def test_a_model_that_learns_beats_the_best_constant(folder: Path, known: houses.Table) -> None:
    model = MODELS["mlp"].model_copy(update={"hidden": (), "lr": 0.5, "epochs": 60})
    (arm,), _ = run(folder, SMALL.model_copy(update={"models": {"linear": model}}))
    constant = error(np.full(len(known.ids), np.exp(np.log(known.prices).mean())), known.prices)
    assert arm.metrics["validation_log_rmse"] < 0.5 * constant


def test_a_rate_that_is_too_high_is_told(folder: Path) -> None:
    models = {"wild": MODELS["linear"].model_copy(update={"lr": 1e6, "epochs": 40})}
    with pytest.raises(UserError, match=r"^house_prices: the training diverged .* below 1e\+06"):
        run(folder, SMALL.model_copy(update={"models": models}))


def test_a_rate_too_high_for_logarithms_is_told(folder: Path) -> None:
    """Logarithms within all bounds, prices beyond."""
    model = HouseModelParams(hidden=(), optimizer="sgd", lr=2.0, epochs=3, log_price=True)
    with pytest.raises(UserError, match=r"models.steep: predicts .* use a learning rate below 2"):
        run(folder, SMALL.model_copy(update={"models": {"steep": model}}))


def test_tables_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing; run the stage `download_houses`"):
        run(tmp_path)
