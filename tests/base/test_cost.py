"""Settings that no machine can train are refused, with figures, before anything begins."""

from typing import Any

import pytest

import tiny
from refashion.base.errors import UserError
from refashion.base.params import Params, cost

WHOLE = {"data__dataset": "mnist", "data__limit": None, "data__validation": 0.0}
"""All official training images."""
WIDE = {"variant": "softmax", "space": {"hidden": [[2], [4096] * 400]}}


def changed(**changes: Any) -> Params:
    """Legal settings, with others of some names; ``a__b`` is b in a."""
    settings = tiny.params().model_dump(mode="json")
    for path, value in changes.items():
        *parents, name = path.split("__")
        section = settings
        for parent in parents:
            section = section[parent]
        section[name] = value
    return Params.model_validate(settings)


@pytest.mark.parametrize(
    ("changes", "section", "needs"),
    [
        ({"epochs": 10**12}, "variants.", "500 TB"),
        ({"variants__wide": {"hidden": [4096] * 400, "lr": 0.1}}, "variants.wide", "107 GB"),
        ({"studies__weight_decay__seeds": 10**9}, "studies.weight_decay", " TB"),
        ({"studies__weight_decay__epochs": 10**12}, "studies.weight_decay", " TB"),
        ({"studies__initialisation__epochs": 10**12}, "studies.initialisation", " TB"),
        ({"sweeps__wide": WIDE}, "sweeps.wide", "107 GB"),
    ],
)
def test_what_does_not_fit_in_memory_is_refused_with_the_figure(
    changes: dict[str, Any], section: str, needs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "MEMORY", 24 * 10**9)
    with pytest.raises(UserError) as refused:
        cost.refuse_impossible(changed(**changes))
    assert str(refused.value).startswith(f"params.yaml: {section}")
    assert f"{needs} of memory or more, and this machine has 24 GB" in str(refused.value)


def test_what_takes_days_is_told_and_what_does_not_is_not() -> None:
    assert cost.refuse_impossible(tiny.params()) == []
    warnings = cost.refuse_impossible(changed(epochs=10**6, data__limit=None))
    assert any("days of two processors; Ctrl-C stops it" in line for line in warnings)


def test_products_are_those_of_the_layers() -> None:
    params = changed(variants={"mlp": {"hidden": [256], "lr": 0.1}}, epochs=10, **WHOLE, sweeps={})
    (mlp,) = (c for c in cost.estimate(params) if c.section == "variants.mlp")
    assert mlp.products == 3 * 60_000 * 10 * (785 * 256 + 257 * 10)


@pytest.mark.parametrize(
    ("space", "search", "trials", "epochs_of_softmax"),
    [
        ({"lr": [0.1, 0.2, 0.3]}, "grid", None, 3 * 10),
        ({"lr": {"log": [0.1, 0.2]}, "epochs": [2, 4]}, "random", 7, 7 * 3),
        ({"seed": {"range": [0, 9]}}, "halving", None, 9),
    ],
)
def test_a_sweep_takes_as_long_as_its_trials(
    space: dict[str, Any], search: str, trials: int | None, epochs_of_softmax: int
) -> None:
    sweep = {"variant": "softmax", "space": space, "search": search, "trials": trials}
    variants = {"softmax": {"hidden": [], "lr": 0.1}}
    params = changed(variants=variants, epochs=10, **WHOLE, sweeps={"s": sweep})
    costs = {c.section: c for c in cost.estimate(params)}
    assert costs["sweeps.s"].products == 3 * 60_000 * epochs_of_softmax * 785 * 10


def test_sections_are_warned_of_once() -> None:
    deep = {"images": 60_000, "epochs": 10**6, "depths": 8, "width": 8, "lr": 0.1, "batch_size": 8}
    params = changed(studies__initialisation=deep)
    (line,) = cost.refuse_impossible(params)
    assert line.startswith("warning: params.yaml: studies.initialisation: some ")


def test_images_are_those_that_there_are() -> None:
    products = []
    for dataset, limit, validation in [
        *[("mnist", None, 0.0), ("mnist", 10**9, 0.0), ("digits", None, 0.0)],
        *[("digits", 750, 0.0), ("digits", None, 0.5)],
    ]:
        params = changed(
            data__dataset=dataset, data__limit=limit, data__validation=validation, sweeps={}
        )
        products.append(next(iter(cost.estimate(params))).products)
    assert products == [40 * products[2]] * 2 + [products[2], *[products[2] // 2] * 2]
