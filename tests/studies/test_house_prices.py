"""House prices: the study on synthetic tables, recomputed from what it trained."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import oracles
import tiny
from oracles import train
from refashion.base.errors import UserError
from refashion.base.params.studies import HouseModelParams
from refashion.data import houses, splits, synthetic
from refashion.data.catalogue import HOUSE_FILES
from refashion.studies import house_prices
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.loop import Model, Training
from refashion.training.settings import Settings

SEED = tiny.params().seed
MODELS: dict[str, HouseModelParams] = tiny.STUDIES["house_prices"]["models"]
MEASURES = ("train_log_rmse", "validation_log_rmse")


def run(root: Path, train: str = "", test: str = "", **changes: Any) -> tiny.Result:
    """Run the study in `root`, with tables of one's own."""
    workspace = tiny.write_data(root)
    for part, text in {"train": train, "test": test}.items():
        if text:
            (workspace.houses / HOUSE_FILES[part]).write_text(text)
    return tiny.run(house_prices, workspace, tiny.params("house_prices", **changes))


def table(part: str) -> str:
    return synthetic.houses()[HOUSE_FILES[part]].decode()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tiny.Result:
    return run(tmp_path_factory.mktemp("houses"))


@pytest.fixture(scope="module")
def known(result: tiny.Result) -> houses.Table:
    return houses.read_train(result.workspace.houses / HOUSE_FILES["train"])


def prices(weights: Weights, inputs: np.ndarray, model: HouseModelParams) -> np.ndarray:
    """What a model predicts, in float64."""
    outputs = oracles.outputs(weights, torch.from_numpy(inputs)).numpy()[:, 0]
    return np.exp(outputs) if model.log_price else outputs


def error(predicted: np.ndarray, true: np.ndarray) -> float:
    """The book's: of the logarithms, nothing below a dollar."""
    return float(np.sqrt(np.mean((np.log(np.maximum(predicted, 1)) - np.log(true)) ** 2)))


def folds(known: houses.Table, k: int = 3) -> list[tuple[houses.Table, houses.Table]]:
    chosen = splits.folds(np.zeros(len(known.ids), dtype=np.int64), k, SEED)
    kept = [np.setdiff1d(np.arange(len(known.ids)), fold) for fold in chosen]
    return [(known.rows(a), known.rows(b)) for a, b in zip(kept, chosen, strict=True)]


def errors(result: tiny.Result, known: houses.Table, name: str, k: int = 3) -> np.ndarray:
    """Of every fold (rows) the errors of training and validation."""
    trainings = result.trainings[name]
    rows = []
    for training, tables in zip(trainings, folds(known, k), strict=True):
        width = training.settings.num_inputs
        inputs = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in houses.features(*tables))
        pairs = zip(inputs, tables, strict=True)
        rows.append([error(prices(training.weights, x, MODELS[name]), t.prices) for x, t in pairs])
    return np.array(rows)


def settings(name: str, num_inputs: int = 6) -> Settings:
    own = MODELS[name].model_dump(exclude={"log_price"})
    more = {"num_inputs": num_inputs, "num_outputs": 1, "loss": "squared"}
    return Settings(**own, **more, seed=SEED, batch_size=32)


def alone(known: houses.Table, name: str) -> Training:
    """A training of a model's settings on a table of one's own."""
    (inputs,) = houses.features(known)
    targets = np.log(known.prices) if MODELS[name].log_price else known.prices
    examples = Examples(inputs=torch.from_numpy(inputs), targets=torch.from_numpy(targets)[:, None])
    own = settings(name, inputs.shape[1])
    (training,) = train(Model(settings=own, train=examples, validation=examples[:0]))
    return training


def test_every_model_is_a_run(result: tiny.Result, known: houses.Table) -> None:
    assert list(result.runs) == ["linear", "mlp"]
    for (name, run), model in zip(result.runs.items(), MODELS.values(), strict=True):
        about = {"folds": 3, "log_price": model.log_price}
        assert run.record.params == {**settings(name).as_dict(), **about}
        assert run.record.inputs["train"] == houses.digest(known)
        assert run.has("submission.csv") == ("test" in run.record.inputs) == (name == best(result))
        assert len(result.trainings[name]) == 3 and len(run.rows) == model.epochs


def best(result: tiny.Result) -> str:
    return min(result.runs, key=lambda name: result.runs[name].metrics["validation_log_rmse"])


@pytest.mark.parametrize("name", MODELS)
def test_errors_are_those_of_the_predictions(
    result: tiny.Result, known: houses.Table, name: str
) -> None:
    run, recomputed = result.runs[name], errors(result, known, name)
    assert run.metrics["folds"] == 3
    for measure, values in zip(MEASURES, recomputed.T, strict=True):
        assert run.metrics[measure] == pytest.approx(values.mean(), rel=1e-4)
        assert run.metrics[f"{measure}_std"] == pytest.approx(statistics.stdev(values), rel=1e-2)
        assert run.history[measure][-1] == run.metrics[measure]
    assert run.history["validation_log_rmse"][-1] < run.history["validation_log_rmse"][0]
    least = result.runs[best(result)].metrics["validation_log_rmse"]
    assert result.headline == {"validation_log_rmse": {best(result): least}}


@pytest.mark.parametrize("name", MODELS)
def test_each_fold_learns_from_the_others_alone(
    result: tiny.Result, known: houses.Table, name: str
) -> None:
    """Prices that are held out cannot have been seen: a training without them is the same."""
    for training, (kept, held_out) in zip(result.trainings[name], folds(known), strict=True):
        assert not {*kept.ids} & {*held_out.ids}
        assert oracles.distance(training.weights, alone(kept, name).weights) < 1e-5


def test_the_best_model_predicts_the_submission(result: tiny.Result, known: houses.Table) -> None:
    name = best(result)
    test = houses.read_test(result.workspace.houses / HOUSE_FILES["test"], known)
    rows = result.runs[name].table("submission.csv")
    assert list(rows[0]) == ["Id", "SalePrice"]  # the form that Kaggle takes
    assert [row["Id"] for row in rows] == [str(i) for i in range(241, 301)] == test.ids.tolist()
    inputs = houses.features(known, test)[1]
    expected = prices(alone(known, name).weights, inputs, MODELS[name])
    assert [float(row["SalePrice"]) for row in rows] == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize(("worse", "better"), [("linear", "mlp"), ("mlp", "linear")])
def test_whichever_model_is_best(tmp_path: Path, worse: str, better: str) -> None:
    models = {**MODELS, worse: MODELS[worse].model_copy(update={"lr": 1e-6, "epochs": 1})}
    runs = run(tmp_path, models=models).runs
    assert [name for name, own in runs.items() if own.has("submission.csv")] == [better]


def test_test_houses_change_no_validation(result: tiny.Result, tmp_path: Path) -> None:
    header, *rows = table("test").splitlines()
    other = run(tmp_path, test="\n".join([header, *rows[:2], "9,99999,1,Moon"]) + "\n")
    name = best(result)
    submission = other.runs[name].table("submission.csv")
    assert submission[:2] == result.runs[name].table("submission.csv")[:2]
    assert [row["Id"] for row in submission] == ["241", "242", "9"]
    for name in MODELS:
        assert other.runs[name].rows == result.runs[name].rows
        assert other.runs[name].metrics == result.runs[name].metrics


def test_folds_of_different_widths_and_sizes(tmp_path: Path) -> None:
    """A quarter of one house is unknown to the fold without it: a column of zeros stands in.

    Folds of 34 and 35 houses fit in no stack.
    """
    assert table("train").count("5,1930,NA,Hill") == 1
    moon = table("train").replace("5,1930,NA,Hill", "5,1930,NA,Moon")
    result = run(tmp_path, train=moon, folds=7)
    known = houses.read_train(result.workspace.houses / HOUSE_FILES["train"])
    widths = [houses.features(*pair)[0].shape[1] for pair in folds(known, 7)]
    assert sorted(widths) == [6, 7, 7, 7, 7, 7, 7]
    for name, own in result.runs.items():
        assert own.record.params["num_inputs"] == own.metrics["folds"] == 7
        assert len({t.digest for t in result.trainings[name]}) == 7
        expected = errors(result, known, name, 7)[:, 1].mean()
        assert own.metrics["validation_log_rmse"] == pytest.approx(expected, rel=1e-4)


def test_log_rmse_is_numpys() -> None:
    rng = np.random.default_rng(0)
    true, predicted = np.exp(rng.normal(12, 0.5, (2, 50)))
    predicted[:3] = [-1e5, 0, 0.3]  # count as a dollar
    got = house_prices.log_rmse(torch.from_numpy(predicted), torch.from_numpy(true))
    assert got == pytest.approx(error(predicted, true), rel=1e-7)
    assert house_prices.log_rmse(torch.from_numpy(true), torch.from_numpy(true)) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 1e6, "epochs": 40}, r"^house_prices/wild: diverged in epoch .* below 1e\+06$"),
        # Logarithms within all bounds, prices beyond.
        ({"lr": 2.0, "log_price": True}, r"models\.wild: predicts .* in epoch .* rate below 2$"),
    ],
)
def test_a_rate_that_is_too_high_is_told(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, models={"wild": MODELS["linear"].model_copy(update=changes)})
    assert not (tmp_path / "reports").exists()


def test_prices_of_the_test_houses_are_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(weights: Weights, inputs: torch.Tensor, model: HouseModelParams) -> torch.Tensor:
        prices = known(weights, inputs, model)
        return prices / 0 if len(inputs) == num_houses else prices

    known = house_prices.predict
    workspace = tiny.write_data(tmp_path)
    num_houses = len((workspace.houses / HOUSE_FILES["test"]).read_text().splitlines()) - 1
    monkeypatch.setattr(house_prices, "predict", predict)
    with pytest.raises(UserError, match="beyond all bounds for the test houses; use a learning"):
        tiny.run(house_prices, workspace, tiny.params())
