"""What ``params.yaml`` may hold, and how each mistake in it is told."""

import re
import reprlib
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.params import fields
from refashion.base.params.studies import StudiesParams
from refashion.data import catalogue
from refashion.training.optimizers import OPTIMIZERS

Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
GONE = object()
"""In place of a value: leave the key out."""

WEIGHT_DECAY, HOUSES = "studies.weight_decay", "studies.house_prices"
DEEP, LINEAR = "studies.initialisation", "studies.house_prices.models.linear"
GATE = "gates[0]"
GATES = "a list of mappings of run, metric, at_least or at_most, and margin"


@pytest.fixture(scope="module")
def committed(root: Path) -> Any:
    return yaml.safe_load((root / "params.yaml").read_text())


@pytest.fixture
def load(committed: dict[str, Any], tmp_path: Path) -> Any:
    """Load the committed settings with some dotted keys changed."""

    def load(changes: dict[str, Any]) -> params.Params:
        raw = deepcopy(committed)
        for key, value in changes.items():
            *parents, last = (
                int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+|^$", key)
            )
            owner = reduce(getitem, parents, raw)
            if value is GONE:
                del owner[last]
            else:
                owner[last] = value
        path = tmp_path / "params.yaml"
        path.write_bytes(yaml.dump(raw, Dumper=Dumper, sort_keys=False, encoding="utf-8"))
        return params.load(path)

    return load


@pytest.fixture
def mistakes(load: Any) -> Any:
    """Give the lines about changes that are not legal."""

    def mistakes(changes: dict[str, Any]) -> list[str]:
        with pytest.raises(UserError) as caught:
            load(changes)
        lines = str(caught.value).splitlines()
        assert all(line.startswith("params.yaml: ") for line in lines)
        return [line.removeprefix("params.yaml: ") for line in lines]

    return mistakes


# --- what is legal ----------------------------------------------------------------------------


def test_committed_settings_are_the_books(root: Path) -> None:
    p = params.load(root / "params.yaml")
    assert (p.lr, p.seed, p.epochs, p.batch_size) == (None, 0, 10, 256)
    assert (p.weight_decay, p.momentum, p.device, p.numerics) == (0.0, 0.0, "auto", "portable")
    assert p.data == params.DataParams(dataset="fashion_mnist", limit=None, validation=0.1, seed=0)
    assert {name: (v.hidden, v.dropout, v.lr) for name, v in p.variants.items()} == {
        "softmax": ((), None, 0.1),
        "mlp": ((256,), None, 0.1),
        "dropout": ((256, 256), (0.2, 0.5), 0.5),
    }
    decay = p.studies.weight_decay
    assert (decay.weight_decays, decay.train, decay.inputs) == ((0.0, 3.0), 20, 200)
    linear = p.studies.house_prices.models["linear"]
    assert (linear.hidden, linear.optimizer, linear.lr, linear.epochs) == ((), "adam", 5.0, 100)
    assert (linear.weight_decay, linear.log_price) == (0.0, False)


def test_choices_are_those_there_are(root: Path) -> None:
    assert set(get_args(fields.Dataset)) == set(catalogue.DATASETS)
    assert set(get_args(fields.Houses)) == set(catalogue.HOUSES)
    assert set(get_args(fields.Optimizer)) == set(OPTIMIZERS)
    modules = {path.stem for path in (root / "src" / "refashion" / "studies").glob("*.py")}
    assert set(StudiesParams.model_fields) <= modules


def test_a_variant_by_its_name(load: Any) -> None:
    assert load({}).variant("mlp").hidden == (256,)
    message = r"'mpl' is not in params.yaml; there are softmax, mlp, dropout"
    with pytest.raises(UserError, match=message):
        load({}).variant("mpl")


def test_an_integer_is_a_number(load: Any) -> None:
    lr = load({"lr": 1}).lr
    assert type(lr) is float and lr == 1.0


@given(lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_number_survives_being_written_by_dvc(
    root: Path, tmp_path_factory: pytest.TempPathFactory, lr: float
) -> None:
    """DVC writes YAML 1.2: the shortest digits, with or without a dot."""
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    text = (root / "params.yaml").read_text()
    path.write_text(text.replace("\nlr: ", f"\nlr: {lr!r} ", 1))
    assert params.load(path).lr == lr


def test_gates_name_variants_and_runs_of_studies(load: Any) -> None:
    gates = [
        {"run": "house_prices/linear", "metric": "error", "at_most": 0.2},
        {"run": "mlp", "metric": "a", "at_least": 1},
    ]
    most, least = load({"gates": gates}).gates
    assert most.admits(0.2) and not most.admits(0.21) and not most.admits(float("nan"))
    assert least.admits(1.0) and not least.admits(0.99) and not least.admits(float("nan"))
    assert load({"gates": GONE}).gates == ()


@pytest.mark.parametrize(
    ("bounds", "edge", "beyond", "text"),
    [
        ({"at_least": 0.5, "margin": 0.25}, 0.25, 0.2499, ">= 0.5 (margin 0.25)"),
        ({"at_most": 0.5, "margin": 0.25}, 0.75, 0.7501, "<= 0.5 (margin 0.25)"),
        ({"at_most": 1}, 1.0, 1.0001, "<= 1"),
    ],
)
def test_a_margin_is_beyond_the_bound(bounds: Any, edge: float, beyond: float, text: str) -> None:
    gate = params.Gate(run="mlp", metric="test_accuracy", **bounds)
    assert gate.admits(edge) and not gate.admits(beyond)
    assert str(gate) == text


# --- what is not ------------------------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
COUNT = "an integer >= 1"
SEED = "an integer from 0 to 2**63 - 1"
RATE = "a number > 0"
PENALTY = "a number >= 0"
SHARE = "a number in [0, 1)"
FOLDS = "an integer from 2 to 100"
WIDTHS = "a list of integers from 1 to 4096"
DROPOUTS = "a list of numbers in [0, 1), one for each hidden layer"
PENALTIES = "a list of numbers >= 0, at least one"

COUNTS = [
    *("epochs", "batch_size", f"{HOUSES}.batch_size", f"{LINEAR}.epochs"),
    *(f"{WEIGHT_DECAY}.{key}" for key in ("train", "test", "batch_size", "epochs", "seeds")),
    *(f"{DEEP}.{key}" for key in ("images", "batch_size", "epochs")),
]
UP_TO = {f"{WEIGHT_DECAY}.inputs": 4096, f"{DEEP}.width": 4096, f"{DEEP}.depths": 32}

ILLEGAL: list[tuple[str, Any, str]] = [
    *((key, v, COUNT) for key in COUNTS for v in (0, -1, 10.0, "ten", "10", True, None, [10])),
    *((f"{x}seed", v, SEED) for x in ("", "data.") for v in (-1, 2**63, 0.5, None, "0")),
    *(("data.limit", v, f"{COUNT}, or empty") for v in (0, 1.5, "all", False)),
    *(
        (key, v, f"{RATE}, or empty")
        for key in ("lr", "variants.mlp.lr")
        for v in (0, -0.1, -1e-05, NAN, INF, "nan", "fast", "0.1", "", True)
    ),
    *((f"{x}.lr", v, RATE) for x in (WEIGHT_DECAY, LINEAR, DEEP) for v in (0, NAN, "x", None)),
    *(("weight_decay", v, PENALTY) for v in (-0.1, INF, None, "x")),
    *((f"{LINEAR}.weight_decay", v, PENALTY) for v in (-0.1, NAN, None)),
    *((k, v, SHARE) for k in ("momentum", "data.validation") for v in (-0.1, 1, NAN, None, "x")),
    *((f"{WEIGHT_DECAY}.weight_decays", v, PENALTIES) for v in ([], 3, None, [0, -1], [NAN])),
    *((f"{x}.folds", v, FOLDS) for x in (HOUSES, "studies.k_fold") for v in (1, 101, 2.0, None)),
    *((k, v, f"an integer from 1 to {n}") for k, n in UP_TO.items() for v in (0, n + 1, None)),
    *(
        (f"{key}.hidden", v, WIDTHS)
        for key in ("variants.mlp", LINEAR)
        for v in (256, None, [0], [-1], [4097], [True], [1.0], ["a"], {"a": 1})
    ),
    *(("variants.dropout.dropout", v, DROPOUTS) for v in (0.2, ["a", 0.5], [0.2, 1.0], [-0.1, 0])),
    ("variants.dropout.dropout", [0.2, NAN], DROPOUTS),
    *(("device", v, "one of auto, cpu, cuda") for v in ("gpu", ["cpu"], None)),
    ("numerics", "fast", "one of portable, native"),
    ("data.dataset", "cifar10", "one of fashion_mnist, mnist, kmnist, digits"),
    (f"{HOUSES}.dataset", "zillow", "one of kaggle, synthetic"),
    (f"{LINEAR}.optimizer", "adamw", "one of sgd, adam"),
    *((f"{LINEAR}.log_price", v, "true or false") for v in (1, "yes", None)),
    *((GATE, v, "a mapping of run, metric, at_least, at_most, margin") for v in (0.8, None, [])),
    *((f"{GATE}.run", v, "the name of a run, as mlp or weight_decay/decay_3") for v in ("a b", 3)),
    *((f"{GATE}.metric", v, "the name of a metric") for v in ("", None)),
    *((f"{GATE}.at_least", v, "a number") for v in (NAN, "high")),
    *((f"{GATE}.margin", v, PENALTY) for v in (-1.0, None)),
    *(("gates", v, GATES) for v in (3, None, {})),
    *(("variants", v, "a mapping from names to architectures, at least one") for v in ({}, 3)),
    *(("variants.mlp", v, "a mapping of hidden, dropout, lr") for v in (None, 1, [256])),
    *((f"{HOUSES}.models", v, "a mapping from names to models, at least one") for v in ({}, [1])),
    *(("data", v, "a mapping of dataset, limit, validation, seed") for v in (None, "mnist")),
    ("studies", None, "a mapping of weight_decay, house_prices, initialisation, k_fold"),
    ("studies.k_fold", 5, "a mapping of folds"),
]


def apart(key: str, others: list[tuple[str, Any, str]]) -> bool:
    """Whether a key is neither one of the others nor above or below one."""
    own, *those = (f"{k}.".replace("[", ".[") for k in (key, *(other for other, *_ in others)))
    return not any(own.startswith(other) or other.startswith(own) for other in those)


def test_illegal_values_are_told_in_a_line_each(mistakes: Any) -> None:
    rounds: list[list[tuple[str, Any, str]]] = []  # few files with many mistakes: it takes less
    for case in ILLEGAL:
        cases = next((cases for cases in rounds if apart(case[0], cases)), None)
        if cases is None:
            rounds.append(cases := [])
        cases.append(case)
    for cases in rounds:
        lines = [
            f"{key} is {'empty' if v is None else repr(v)}; it must be {legal}"
            for key, v, legal in cases
        ]
        assert sorted(mistakes({key: v for key, v, _ in cases})) == sorted(lines)


@pytest.mark.parametrize(
    ("key", "legal"),
    [
        ("epochs", COUNT),
        ("lr", f"{RATE}, or empty"),
        ("variants.mlp.hidden", WIDTHS),
        ("data", "a mapping of dataset, limit, validation, seed"),
        ("studies", "a mapping of weight_decay, house_prices, initialisation, k_fold"),
        (f"{LINEAR}.optimizer", "one of sgd, adam"),
        ("studies.k_fold", "a mapping of folds"),
    ],
)
def test_missing_key_is_told_with_what_it_must_be(mistakes: Any, key: str, legal: str) -> None:
    assert mistakes({key: GONE}) == [f"{key} is missing; it must be {legal}"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("x", "there are lr, seed, epochs, batch_size, weight_decay, momentum, device, numerics, "),
        ("data.limits", "did you mean limit?"),
        ("variants.softmax.hiden", "did you mean hidden?"),
        (f"{LINEAR}.optimiser", "did you mean optimizer?"),
        (f"{WEIGHT_DECAY}.weight_decay", "did you mean weight_decays?"),
        ("studies.kfold", "did you mean k_fold?"),
        ("studies.k_fold.x", "there are folds"),
        (f"{GATE}.at_lest", "did you mean at_least?"),
    ],
)
def test_unknown_key_is_told_with_those_there_are(mistakes: Any, key: str, hint: str) -> None:
    (line,) = mistakes({key: 1})
    assert line.startswith(f"{key}: unknown key; {hint}")


@pytest.mark.parametrize(
    "name", ["a b", "a@b", "..", "-a", "", "a\n", "größe", "x; touch y", "a" * 65, "a/b"]
)
def test_names_are_names_of_files(mistakes: Any, name: str) -> None:
    keys = ("variants", f"{HOUSES}.models")
    lines = mistakes({key: {name: {}} for key in keys})
    for key in keys:
        told = f"{key}: {reprlib.repr(name)} is no legal name; it must be letters, digits, _ and -"
        assert any(line.startswith(told) for line in lines)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"variants.dropout.dropout": [0.2]},
            "variants.dropout: dropout has 1 values and hidden has 2; "
            "give one dropout for each hidden layer",
        ),
        (
            {"variants.dropout.lr": None},
            "neither lr nor variants.dropout.lr is given; one of them must be a number > 0",
        ),
        (
            {"variants.Mlp": {"hidden": [], "lr": 1.0}},
            "variants: 'mlp' and 'Mlp' differ in case alone; rename one",
        ),
        (
            {"variants.k_fold": {"hidden": [], "lr": 1.0}},
            "variants.k_fold: is the name of a study; choose another",
        ),
        (
            {"variants.a/b": {"hidden": []}},
            "variants: 'a/b' is no legal name; it must be letters, ",
        ),
        (
            {f"{WEIGHT_DECAY}.weight_decays": [0, 3, 3.0]},
            f"{WEIGHT_DECAY}.weight_decays: 3.0 stands there twice; remove one",
        ),
        (
            {f"{GATE}.at_least": GONE},
            f"{GATE}: softmax, test_accuracy: needs one bound, at_least or at_most",
        ),
        (
            {f"{GATE}.at_most": 2},
            f"{GATE}: softmax, test_accuracy: needs one bound, at_least or at_most",
        ),
    ],
)
def test_settings_that_do_not_go_together(mistakes: Any, changes: Any, told: str) -> None:
    (line,) = mistakes(changes)
    assert line.startswith(told)


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params.yaml: is missing; bring it back with `git check"):
        params.load(path)
    for text, told in {
        "": "holds empty; it must be a mapping of settings",
        "[1, 2]": r"holds \[1, 2\]; it must be a mapping of settings",
        "a: &a [*a]": "a: unknown key; there are lr",
        "epochs: 1\nepochs: 2\n": "line 2: epochs stands here a second time; remove one",
    }.items():
        path.write_text(text)
        with pytest.raises(UserError, match=rf"(?m)^params.yaml: {told}"):
            params.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"params.yaml: cannot be read \(Is a directory\); bring"):
        params.load(path)
