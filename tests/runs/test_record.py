"""The record of a run: what its key names, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import synthetic
from refashion.runs.record import LAYOUT, Record, read

RECORD = synthetic.record(
    "weight_decay/decay_3",
    params={"lr": 0.1, "hidden": [8, 4], "dropout": None},
    outputs={"weights": "2" * 64, "history.csv": "3" * 64},
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3),
    max_leaves=5,
)
SETTINGS = st.dictionaries(st.text(max_size=3), VALUES, min_size=1, max_size=4)


def as_json(record: Record) -> dict[str, Any]:
    return json.loads(json.dumps(record.as_dict()))


@pytest.mark.parametrize("parent", [None, "k_fold/mlp"])
def test_a_record_reads_back(parent: str | None) -> None:
    record = replace(RECORD, parent=parent)
    content = as_json(record)
    assert read(json.dumps(content).encode()) == record
    assert content["layout"] == LAYOUT and content["run_key"] == record.run_key
    assert ("parent" in content) == (parent is not None)


@given(params=SETTINGS)
def test_the_key_does_not_depend_on_the_order_of_settings(params: dict[str, Any]) -> None:
    record = replace(RECORD, params=params)
    shuffled = replace(RECORD, params=dict(reversed(params.items())))
    assert shuffled.run_key == record.run_key
    assert read(json.dumps(as_json(record)).encode()) == record


@given(params=SETTINGS, name=st.data(), value=VALUES)
def test_the_key_moves_with_every_setting(
    params: dict[str, Any], name: st.DataObject, value: Any
) -> None:
    chosen = name.draw(st.sampled_from(sorted(params)))
    changed = {**params, chosen: [params[chosen], value]}  # which differs from any value
    fewer = {k: v for k, v in params.items() if k != chosen}
    keys = {replace(RECORD, params=p).run_key for p in (params, changed, fewer)}
    assert len(keys) == 3


def test_the_key_names_what_determined_the_result_and_nothing_else() -> None:
    determining = {"name": "x", "contract": "x", "inputs": {"train": "x"}, "params": {}}
    others = {
        **{"experiment": "x", "stage": "x", "folders": ("x",), "parent": "x"},
        **{"data": {}, "outputs": {"weights": "x"}},
    }
    assert {*determining, *others} == {*RECORD.as_dict(), "parent"} - {"layout", "run_key"}
    for name, value in (determining | others).items():
        changed = replace(RECORD, **{name: value})
        assert (changed.run_key != RECORD.run_key) == (name in determining)
        assert (changed.result != RECORD.result) == (name == "outputs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"lr": 0.2}}, "run key"),
        ({"contract": "native/cpu"}, "run key"),
        ({"run_key": None}, "run key"),
        ({"variant": "mlp"}, "unknown keys.*variant"),
        ({"folders": None}, "missing or unknown keys"),
        ({"folders": ["models/mlp", "models/../../mlp"]}, "outside the checkout"),
        ({"folders": ["/etc"]}, "outside the checkout"),
        ({"name": "../mlp"}, "outside the checkout"),
        ({"outputs": {"weights": "2" * 64, "../a": "3" * 64}}, "outside the checkout"),
        ({"outputs": {}}, "no weights"),
        ({"outputs": {"history.csv": "3" * 64}}, "no weights"),
        ({"outputs": {"weights": 5}}, "no SHA-256s"),
        ({"outputs": {"weights": "2" * 64, "history.csv": "3" * 63 + "\n"}}, "no SHA-256s"),
        ({"inputs": {"train": None}}, "no SHA-256s"),
        ({"parent": 5}, "parent"),
        *(
            ({name: ...}, r"missing.* keys|run key")  # not there at all
            for name in ("name", "stage", "folders", "inputs", "params", "run_key")
        ),
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any], message: str) -> None:
    content = {k: v for k, v in (as_json(RECORD) | change).items() if v is not ...}
    with pytest.raises(ValueError, match=message):
        read(json.dumps(content).encode())


@pytest.mark.parametrize("layout", [None, 1, LAYOUT + 1])
def test_a_record_of_another_layout_is_not_read(layout: int | None) -> None:
    assert read(json.dumps(as_json(RECORD) | {"layout": layout}).encode()) is None


def test_other_content_is_told_apart() -> None:
    for content in (b"", b"[]", b"{", b"3"):
        with pytest.raises(ValueError):
            read(content)
