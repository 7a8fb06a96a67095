"""What ``params.yaml`` may say of the studies, and how each mistake in it is told."""

from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from refashion import studies
from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.params.fields import Strict
from refashion.base.params.studies import (
    HousePricesParams,
    InitialisationParams,
    KFoldParams,
    StudiesParams,
    WeightDecayParams,
)

GONE = object()
"""In place of a value: leave the key out."""

KINDS = {
    "weight_decay": WeightDecayParams,
    "house_prices": HousePricesParams,
    "initialisation": InitialisationParams,
    "k_fold": KFoldParams,
}


@pytest.fixture
def load(root: Path, tmp_path: Path) -> Any:
    """Load the committed settings with some dotted keys changed."""

    def load(changes: dict[str, Any]) -> params.Params:
        raw = yaml.safe_load((root / "params.yaml").read_text())
        for key, value in changes.items():
            *parents, last = key.split(".")
            owner = reduce(getitem, parents, raw)
            if value is GONE:
                del owner[last]
            else:
                owner[last] = value
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return params.load(path)

    return load


def mistakes(load: Any, changes: dict[str, Any]) -> list[str]:
    """Lines about changes that are not legal."""
    with pytest.raises(UserError) as caught:
        load(changes)
    return str(caught.value).splitlines()


def test_committed_settings_are_the_books() -> None:
    found = params.load()
    weight_decay = found.study(WeightDecayParams)
    assert weight_decay.weight_decays == (0.0, 3.0)
    assert (weight_decay.train, weight_decay.test, weight_decay.inputs) == (20, 100, 200)
    assert (weight_decay.lr, weight_decay.batch_size, weight_decay.epochs) == (0.003, 5, 100)
    houses = found.study(HousePricesParams)
    linear = houses.models["linear"]
    assert (houses.dataset, houses.folds, houses.batch_size) == ("kaggle", 5, 64)
    assert (linear.hidden, linear.optimizer, linear.lr, linear.epochs) == ((), "adam", 5.0, 100)
    assert (linear.weight_decay, linear.log_price) == (0.0, False)


@pytest.mark.parametrize("name", KINDS)
def test_each_study_finds_its_settings(name: str) -> None:
    found = params.load()
    assert found.study(KINDS[name]) is getattr(found.studies, name)


def test_every_study_has_settings() -> None:
    assert set(studies.NAMES) == set(StudiesParams.model_fields) == set(KINDS)


WEIGHT_DECAY = "studies.weight_decay"
HOUSES = "studies.house_prices"
MLP = f"{HOUSES}.models.mlp"
DEEP = "studies.initialisation"

COUNT = "it must be an integer >= 1"
RATE = "it must be a number > 0"
PENALTY = "it must be a number >= 0"
PENALTIES = "it must be a list of numbers >= 0, at least one"
FOLDS = "it must be an integer from 2 to 100"
UP_TO_4096 = "it must be an integer from 1 to 4096"
WIDTHS = "it must be a list of integers from 1 to 4096"
STUDY = "it must be a mapping of the study's settings"
MODELS = "it must be a mapping from names to models, at least one"
MODEL = "it must be a mapping of hidden, optimizer, lr, weight_decay and log_price"

COUNTS = [
    *(f"{WEIGHT_DECAY}.{key}" for key in ("train", "test", "batch_size", "epochs", "seeds")),
    *(f"{HOUSES}.batch_size", f"{MLP}.epochs"),
    *(f"{DEEP}.{key}" for key in ("images", "batch_size", "epochs")),
]

ILLEGAL: list[tuple[str, Any, str]] = [
    *((key, value, COUNT) for key in COUNTS for value in (0, -1, 1.5, "ten", True, None)),
    *((f"{x}.lr", v, RATE) for x in (WEIGHT_DECAY, MLP, DEEP) for v in (0, -0.1, "fast", True)),
    *((f"{x}.lr", v, RATE) for x in (WEIGHT_DECAY, MLP, DEEP) for v in (None, float("nan"))),
    *((f"{MLP}.lr", v, RATE) for v in (float("inf"), [0.1], "1e999")),
    *((f"{MLP}.weight_decay", v, PENALTY) for v in (-0.1, float("inf"), None, "much")),
    *((f"{WEIGHT_DECAY}.weight_decays", v, PENALTIES) for v in ([], 3, None, "none", {"a": 1})),
    *((f"{WEIGHT_DECAY}.weight_decays", v, PENALTIES) for v in ([0, -1], ["x"], [True])),
    *((f"{x}.folds", v, FOLDS) for x in (HOUSES, "studies.k_fold") for v in (1, 101, 2.0, None)),
    *((f"{WEIGHT_DECAY}.inputs", v, UP_TO_4096) for v in (0, 4097, None)),
    *((f"{DEEP}.width", v, UP_TO_4096) for v in (0, 4097, "wide")),
    *((f"{DEEP}.depths", v, "it must be an integer from 1 to 32") for v in (0, 33, [1, 2])),
    *((f"{MLP}.hidden", v, WIDTHS) for v in (64, None, [0], [4097], [True], ["a"])),
    *((f"{MLP}.optimizer", v, "it must be one of sgd, adam") for v in ("adamw", None, ["adam"])),
    *((f"{MLP}.log_price", v, "it must be true or false") for v in (1, "yes", None)),
    (f"{HOUSES}.dataset", "zillow", "it must be one of kaggle, made_up"),
    *((f"{HOUSES}.models", v, MODELS) for v in ({}, [], ["mlp"], None, "mlp")),
    *((MLP, v, MODEL) for v in (None, 7, [64], "wide")),
    *((f"studies.{name}", v, STUDY) for name in KINDS if name != "k_fold" for v in (None, [1])),
    ("studies.k_fold", 5, "it must be a mapping of folds"),
    *(("studies", v, "it must be a mapping from studies to their settings") for v in ([], 3, "x")),
]


@pytest.mark.parametrize(("key", "value", "legal"), ILLEGAL, ids=lambda x: str(x)[:50])
def test_illegal_value_is_told_in_one_line(load: Any, key: str, value: Any, legal: str) -> None:
    shown = "empty" if value is None else repr(value)
    assert mistakes(load, {key: value}) == [f"params.yaml: {key} is {shown}; {legal}"]


@pytest.mark.parametrize(
    ("key", "legal"),
    [
        (f"{WEIGHT_DECAY}.seeds", COUNT),
        (f"{WEIGHT_DECAY}.weight_decays", PENALTIES),
        (f"{HOUSES}.models", MODELS),
        (f"{MLP}.hidden", WIDTHS),
        (f"{MLP}.optimizer", "it must be one of sgd, adam"),
        (f"{MLP}.lr", RATE),
        (f"{DEEP}.depths", "it must be an integer from 1 to 32"),
        ("studies.k_fold.folds", FOLDS),
        ("studies.initialisation", STUDY),
        ("studies.k_fold", "it must be a mapping of folds"),
    ],
)
def test_missing_key_is_told_with_what_it_must_be(load: Any, key: str, legal: str) -> None:
    assert mistakes(load, {key: GONE}) == [f"params.yaml: {key} is missing; {legal}"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        (f"{MLP}.optimiser", "did you mean optimizer?"),
        (f"{MLP}.log_prices", "did you mean log_price?"),
        (f"{WEIGHT_DECAY}.weight_decay", "did you mean weight_decays?"),
        (f"{HOUSES}.fold", "did you mean folds?"),
        (f"{DEEP}.depth", "did you mean depths?"),
        ("studies.kfold", "did you mean k_fold?"),
        ("studies.k_fold.x", "there are folds"),
        (f"{MLP}.x", "there are hidden, optimizer, lr, epochs, weight_decay, log_price"),
    ],
)
def test_unknown_key_is_told_with_those_there_are(load: Any, key: str, hint: str) -> None:
    assert mistakes(load, {key: 1}) == [f"params.yaml: {key}: unknown key; {hint}"]


@pytest.mark.parametrize("name", ["a b", "a/b", "..", "-a", "", "größe", "a" * 65])
def test_names_of_models_are_names_of_files(load: Any, name: str) -> None:
    raw = {"hidden": [], "optimizer": "adam", "lr": 1.0, "epochs": 1}
    (line,) = mistakes(load, {f"{HOUSES}.models": {name: raw}})
    assert line.startswith(f"params.yaml: {HOUSES}.models: ")
    assert "is no legal name; it must be letters, digits, _ and -, a letter or digit first" in line


def test_a_penalty_that_stands_there_twice(load: Any) -> None:
    key = "studies.weight_decay.weight_decays"
    assert mistakes(load, {key: [0, 3, 3.0]}) == [
        f"params.yaml: {key}: 3.0 stands there twice; remove one"
    ]


def test_names_of_models_that_differ_in_case_alone(load: Any) -> None:
    raw = {"hidden": [], "optimizer": "adam", "lr": 1.0, "epochs": 1}
    assert mistakes(load, {f"{HOUSES}.models": {"MLP": raw, "linear": raw, "mlp": raw}}) == [
        f"params.yaml: {HOUSES}.models: 'MLP' and 'mlp' differ in case alone; rename one"
    ]


def test_each_mistake_has_its_line(load: Any) -> None:
    changes = {"epochs": 0, f"{MLP}.lr": -1, f"{MLP}.hidden": [0, 0], "studies.k_fold.folds": 1}
    assert sorted(mistakes(load, changes)) == [
        f"params.yaml: epochs is 0; {COUNT}",
        f"params.yaml: {MLP}.hidden is [0, 0]; {WIDTHS}",
        f"params.yaml: {MLP}.lr is -1; {RATE}",
        f"params.yaml: studies.k_fold.folds is 1; {FOLDS}",
    ]


def test_defaults_of_a_model(load: Any) -> None:
    raw = {"hidden": [3, 2], "optimizer": "sgd", "lr": 1, "epochs": 1}
    model = load({f"{HOUSES}.models": {"tiny": raw}}).study(HousePricesParams).models["tiny"]
    assert model.hidden == (3, 2) and (model.weight_decay, model.log_price) == (0.0, False)
    assert type(model.lr) is float and model.lr == 1.0


@pytest.mark.parametrize(
    ("key", "value", "number"),
    [
        (f"{MLP}.lr", "1e-03", 0.001),
        (f"{MLP}.weight_decay", "5e-4", 0.0005),
        (f"{WEIGHT_DECAY}.lr", "0.003", 0.003),
        (f"{DEEP}.lr", "1E-1", 0.1),
    ],
)
def test_number_in_text_is_taken_and_told(
    load: Any, capsys: pytest.CaptureFixture[str], key: str, value: str, number: float
) -> None:
    found = load({key: value})
    path = key.split(".")[1:]
    owner = reduce(lambda o, k: o[k] if isinstance(o, dict) else getattr(o, k), path, found.studies)
    assert owner == number
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"params.yaml: {key}: the text {value!r} is taken for the number ")


def test_number_in_text_inside_a_list(load: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = load({f"{WEIGHT_DECAY}.weight_decays": [0, "1e-2"]}).study(WeightDecayParams)
    assert found.weight_decays == (0.0, 0.01)
    assert f"{WEIGHT_DECAY}.weight_decays[1]: the text '1e-2'" in capsys.readouterr().err


def test_whole_numbers_in_text_are_not_taken(load: Any) -> None:
    expected = f"params.yaml: {MLP}.epochs is '20'; {COUNT}"
    assert mistakes(load, {f"{MLP}.epochs": "20"}) == [expected]


@pytest.mark.parametrize("studies", [GONE, None], ids=["missing", "empty"])
@pytest.mark.parametrize("kind", KINDS.values())
def test_settings_from_before_there_were_studies(
    load: Any, studies: Any, kind: type[Strict]
) -> None:
    found = load({"studies": studies})
    assert found.studies is None
    with pytest.raises(UserError) as caught:
        found.study(kind)
    assert str(caught.value) == (
        "studies is missing in params.yaml; bring it back with `git checkout params.yaml`"
    )


def test_a_gate_may_name_a_study(load: Any) -> None:
    gates = {"house_prices": {"validation_log_rmse": {"at_most": 0.2}}}
    threshold = load({"gates": gates}).gates["house_prices"]["validation_log_rmse"]
    assert threshold.admits(0.2) and not threshold.admits(0.21)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        params.load().study(KFoldParams).folds = 3


def test_optimizers_and_tables_are_those_there_are() -> None:
    from refashion.base.params.fields import Houses, Optimizer
    from refashion.training.optimizers import OPTIMIZERS

    assert set(get_args(Optimizer)) == set(OPTIMIZERS)
    assert set(get_args(Houses)) == {"kaggle", "made_up"}
