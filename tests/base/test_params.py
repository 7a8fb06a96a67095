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

from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.params import fields, yaml12
from refashion.base.params.studies import StudiesParams
from refashion.base.workspace import Workspace
from refashion.data import catalogue
from refashion.training.optimizers import OPTIMIZERS

RAW = params.read(Workspace.here().params_file)
GONE = object()
"""In place of a value: leave the key out."""

WEIGHT_DECAY, HOUSES = "studies.weight_decay", "studies.house_prices"
DEEP, LINEAR = "studies.initialisation", "studies.house_prices.models.linear"
GATE = "gates[0]"
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def load() -> Any:
    """Load the committed settings with some dotted keys changed."""

    def load(changes: dict[str, Any]) -> params.Params:
        raw = deepcopy(RAW)
        for key, value in changes.items():
            parts = re.findall(r"[^.\[\]]+", key)
            *parents, last = (int(part) if part.isdigit() else part for part in parts)
            owner = reduce(getitem, parents, raw)
            if value is GONE:
                del owner[last]
            else:
                owner[last] = value
        written = yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)
        return params.validate(yaml12.parse(written.encode()), "params.yaml")

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


def test_choices_are_those_there_are(root: Path) -> None:
    assert set(get_args(fields.Dataset)) == set(catalogue.DATASETS)
    assert set(get_args(fields.Houses)) == set(catalogue.HOUSES)
    assert set(get_args(fields.Optimizer)) == set(OPTIMIZERS)
    modules = {path.stem for path in (root / "src" / "refashion" / "studies").glob("*.py")}
    assert set(StudiesParams.model_fields) <= modules


@pytest.mark.parametrize("run", ["mlp", "weight_decay/decay_0.001", "weight_decay/decay_1e+16"])
def test_a_gate_names_any_run(load: Any, run: str) -> None:
    gate = {"run": run, "metric": "l2", "at_most": 1.0}
    assert load({"gates": [gate]}).gates[0].run == run


def test_long_values_are_cut_off(load: Any) -> None:
    long = [[[list(range(9))] * 9] * 9] * 9
    for changes in ({"lr": long}, {"x" * 10**6: 1}, {"epochs": 10**400}, {"seed": 10**400}):
        with pytest.raises(UserError) as refused:
            load(changes)
        assert all(len(line) < 500 for line in str(refused.value).splitlines())


def test_no_gates(load: Any) -> None:
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
    assert gate.admits(edge) and not gate.admits(beyond) and not gate.admits(NAN)
    assert str(gate) == text


# --- what is not ------------------------------------------------------------------------------

COUNT = "an integer from 1 to 2**63 - 1"
RATE = "a number > 0"
RATE_OR_NONE = "a number > 0, or empty"
PENALTY = "a number >= 0"
PENALTIES = "a list of numbers >= 0, at least one"
FOLDS = "an integer from 2 to 100"
WIDTHS = "a list of integers from 1 to 4096"
DROPOUTS = "a list of numbers in [0, 1), one for each hidden layer"
GATES = "a list of mappings of run, metric, at_least or at_most, and margin"
STUDIES = "a mapping of weight_decay, house_prices, initialisation, k_fold"
RUN = "the name of a run, as mlp or weight_decay/decay_3"

COUNTS = [
    *("epochs", "batch_size", f"{HOUSES}.batch_size", f"{LINEAR}.epochs"),
    *(f"{WEIGHT_DECAY}.{key}" for key in ("test", "batch_size", "epochs", "seeds")),
    *(f"{DEEP}.{key}" for key in ("images", "batch_size", "epochs")),
]
UP_TO = {
    **{f"{WEIGHT_DECAY}.inputs": 4096, f"{WEIGHT_DECAY}.train": 2**23 - 1},
    **{f"{DEEP}.width": 4096, f"{DEEP}.depths": 32},
}

ILLEGAL: list[tuple[list[str], str, list[Any]]] = [
    (COUNTS, COUNT, [0, -1, 10.0, "ten", "10", True, None, [10], 2**63]),
    (["seed", "data.seed"], "an integer from 0 to 2**63 - 1", [-1, 2**63, 0.5, None, "0"]),
    (["data.limit"], f"{COUNT}, or empty", [0, 1.5, "all", False]),
    (["lr", "variants.mlp.lr"], RATE_OR_NONE, [0, -1e-05, NAN, INF, "nan", "x", "0.1", "", True]),
    ([f"{x}.lr" for x in (WEIGHT_DECAY, LINEAR, DEEP)], RATE, [0, NAN, "x", None]),
    (["weight_decay", f"{LINEAR}.weight_decay"], PENALTY, [-0.1, INF, NAN, None, "x"]),
    (["momentum", "data.validation"], "a number in [0, 1)", [-0.1, 1, NAN, None, "x"]),
    ([f"{WEIGHT_DECAY}.weight_decays"], PENALTIES, [[], 3, None, [0, -1], [NAN]]),
    ([f"{x}.folds" for x in (HOUSES, "studies.k_fold")], FOLDS, [1, 101, 2.0, None]),
    *(([key], f"an integer from 1 to {n}", [0, n + 1, None]) for key, n in UP_TO.items()),
    (
        ["variants.mlp.hidden", f"{LINEAR}.hidden"],
        WIDTHS,
        [256, None, [0], [-1], [4097], [True], [1.0], ["a"], {"a": 1}],
    ),
    (["variants.dropout.dropout"], DROPOUTS, [0.2, ["a", 1], [0.2, 1.0], [-0.1, 0], [0.2, NAN]]),
    (["device"], "one of auto, cpu, cuda", ["gpu", ["cpu"], None]),
    (["numerics"], "one of portable, native", ["fast"]),
    (["data.dataset"], "one of fashion_mnist, mnist, kmnist, digits", ["cifar10"]),
    ([f"{HOUSES}.dataset"], "one of kaggle, synthetic", ["zillow"]),
    ([f"{LINEAR}.optimizer"], "one of sgd, adam", ["adamw"]),
    ([f"{LINEAR}.log_price"], "true or false", [1, "yes", None]),
    ([f"{GATE}.run"], RUN, ["a b", 3]),
    ([f"{GATE}.metric"], "the name of a metric", ["", None]),
    ([f"{GATE}.at_least"], "a number", [NAN, "high"]),
    ([f"{GATE}.margin"], PENALTY, [-1.0, None]),
]
"""Settings, what they must be, and values that are not legal."""

CONTAINERS: list[tuple[str, str, list[Any]]] = [
    (GATE, "a mapping of run, metric, at_least, at_most, margin", [0.8, None, []]),
    ("gates", GATES, [3, None, {}]),
    ("variants", "a mapping from names to architectures, at least one", [{}, 3, GONE]),
    ("variants.mlp", "a mapping of hidden, dropout, lr", [None, 1, [256]]),
    (f"{HOUSES}.models", "a mapping from names to models, at least one", [{}, [1], GONE]),
    ("data", "a mapping of dataset, limit, validation, seed", [None, "mnist", GONE]),
    ("studies", STUDIES, [None, GONE]),
    ("studies.k_fold", "a mapping of folds", [5, GONE]),
    ("epochs", COUNT, [GONE]),
    ("lr", RATE_OR_NONE, [GONE]),
    ("variants.mlp.hidden", WIDTHS, [GONE]),
    (f"{LINEAR}.optimizer", "one of sgd, adam", [GONE]),
]
"""The same of settings that hold others, and of missing ones."""


def told(key: str, value: Any, legal: str) -> str:
    state = "missing" if value is GONE else "empty" if value is None else repr(value)
    return f"{key} is {state}; it must be {legal}"


@pytest.mark.parametrize("i", range(max(len(values) for *_, values in ILLEGAL)))
def test_illegal_values_are_told_in_a_line_each(mistakes: Any, i: int) -> None:
    cases = [(key, v[i], legal) for keys, legal, v in ILLEGAL for key in keys if i < len(v)]
    lines = mistakes({key: value for key, value, _ in cases})
    assert sorted(lines) == sorted(told(*case) for case in cases)


@pytest.mark.parametrize(
    ("key", "value", "legal"),
    [(key, value, legal) for key, legal, values in CONTAINERS for value in values],
)
def test_illegal_or_missing_settings(mistakes: Any, key: str, value: Any, legal: str) -> None:
    assert mistakes({key: value}) == [told(key, value, legal)]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "did you mean epochs?"),
        ("x", "there are lr, seed, epochs, batch_size, weight_decay, momentum, device, numerics, "),
        ("variants.softmax.hiden", "did you mean hidden?"),
        (f"{LINEAR}.optimiser", "did you mean optimizer?"),
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
        start = f"{key}: {reprlib.repr(name)} is no legal name; it must be letters, digits, _ and -"
        assert any(line.startswith(start) for line in lines)


@pytest.mark.parametrize(
    ("changes", "start"),
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
            {f"{WEIGHT_DECAY}.weight_decays": [0, 3, 3.0]},
            f"{WEIGHT_DECAY}.weight_decays: 3.0 stands there twice; remove one",
        ),
        *(
            (change, f"{GATE}: softmax, test_accuracy: needs one bound, at_least or at_most")
            for change in ({f"{GATE}.at_least": GONE}, {f"{GATE}.at_most": 2})
        ),
    ],
)
def test_settings_that_do_not_go_together(mistakes: Any, changes: Any, start: str) -> None:
    (line,) = mistakes(changes)
    assert line.startswith(start)


def test_files_that_hold_no_settings(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match=r"params.yaml: is missing; bring it back with `git check"):
        params.load(path)
    for text, problem in (
        ("", "holds empty; it must be a mapping of settings"),
        ("[1, 2]", r"holds \[1, 2\]; it must be a mapping of settings"),
        ("a: &a [*a]", "a: unknown key; there are lr"),
        ("epochs: 1\nepochs: 2\n", "line 2: epochs stands here a second time; remove one"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"(?m)^params.yaml: {problem}"):
            params.load(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=r"params.yaml: cannot be read \(Is a directory\); bring"):
        params.load(path)
