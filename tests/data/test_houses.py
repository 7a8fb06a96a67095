"""Tables of houses: how they are read and made into features."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from official import write_all
from refashion.base.errors import UserError
from refashion.data import houses, synthetic
from refashion.data.catalogue import HOUSE_FILES
from refashion.data.houses import Table

TRAIN, TEST = HOUSE_FILES["train"], HOUSE_FILES["test"]

TRAIN_CSV = """\
Id,Area,Age,Quarter,Alley,Floors,SalePrice
1,1500,40,Hill,NA,2,150000
2,1200,NA,Mill,NA,2,120000.5
3,900,,Hill,Grvl,2,90000
4,2000,10,NA,"a, b",2,310000
"""
TEST_CSV = """\
Floors,More,Area,Age,Id,Quarter,Alley
3,x,NA,20,5,Harbour,7
NA,y,1000,30,6,,Grvl
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a table and give its path."""

    def write(text: str, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
        return path

    return write


@pytest.fixture
def train(write: Any) -> Table:
    return houses.read_train(write(TRAIN_CSV))


def are_numbers(values: list[Any]) -> bool:
    return all(x is None or isinstance(x, float) for x in values)


def table(columns: dict[str, list[Any]]) -> Table:
    """A table of columns, None for what is missing."""
    n = len(next(iter(columns.values())))
    arrays = {}
    for name, values in columns.items():
        missing = np.nan if are_numbers(values) else ""
        arrays[name] = np.array([missing if x is None else x for x in values])
    ids = np.array([str(i) for i in range(n)])
    return Table(ids=ids, columns=arrays, prices=np.arange(1.0, n + 1))


def book(columns: dict[str, list[Any]]) -> np.ndarray:
    """Features as the book makes them with pandas, in the order of the columns."""
    parts = []
    for values in columns.values():
        if are_numbers(values):
            column = pd.Series(values, dtype="float64")
            spread = column.std(ddof=1)
            column = (column - column.mean()) / (spread if spread > 0 else 1.0)
            parts.append(column.fillna(0).to_numpy()[:, None])
        else:
            dummies = pd.get_dummies(pd.Series(values, dtype="object"), dummy_na=True)
            parts.append(np.roll(dummies.to_numpy(float), 1, axis=1))  # missing comes first
    return np.concatenate(parts, 1)


# --- reading ----------------------------------------------------------------------------------


def test_columns_are_numbers_or_text(train: Table) -> None:
    assert train.ids.tolist() == ["1", "2", "3", "4"]
    assert train.prices.tolist() == [150000, 120000.5, 90000, 310000]
    assert list(train.columns) == ["Area", "Age", "Quarter", "Alley", "Floors"]
    numbers = [name for name, c in train.columns.items() if c.dtype == np.float64]
    assert numbers == ["Area", "Age", "Floors"]
    np.testing.assert_array_equal(train.columns["Age"], [40, np.nan, np.nan, 10])
    assert train.columns["Quarter"].tolist() == ["Hill", "Mill", "Hill", ""]
    assert train.columns["Alley"].tolist() == ["", "", "Grvl", "a, b"]


def test_houses_without_prices_have_the_columns_of_the_training_table(
    train: Table, write: Any
) -> None:
    """Whatever their order, what else there is, and whatever their values look like."""
    test = houses.read_test(write(TEST_CSV, "test.csv"), train)
    assert test.ids.tolist() == ["5", "6"] and np.isnan(test.prices).all()
    kinds = [{name: c.dtype.kind for name, c in t.columns.items()} for t in (train, test)]
    assert list(kinds[0].items()) == list(kinds[1].items())
    np.testing.assert_array_equal(test.columns["Area"], [np.nan, 1000])
    assert test.columns["Quarter"].tolist() == ["Harbour", ""]
    assert test.columns["Alley"].tolist() == ["7", "Grvl"]
    only = houses.read_test(write(TEST_CSV.replace("20,5", "NA,5").replace("30,6", ",6")), train)
    assert np.isnan(only.columns["Age"]).all()


NO_ROWS, NO_PRICE = "no rows of Id, SalePrice", "a price is no number > 0"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("1,1500,40", "1,1500,40,41", NO_ROWS),
        ("1,1500,40,Hill", "1,1500,40", NO_ROWS),
        ("SalePrice", "Price", NO_ROWS),
        ("Id,", "Name,", NO_ROWS),
        (TRAIN_CSV, "", NO_ROWS),
        (TRAIN_CSV, TRAIN_CSV.splitlines()[0] + "\n", NO_ROWS),
        (TRAIN_CSV, "<html>Please accept our terms</html>\n", NO_ROWS),
        *(("150000", new, NO_PRICE) for new in ("-150000", "0", "NA", "cheap", "nan", "inf")),
        ("Hill", "\udcff", "no table ('utf-8' codec can't decode byte 0xff"),
        ("Hill", '"' + "x" * 200_000 + '"', "no table (field larger than field limit"),
    ],
)
def test_what_is_no_table_is_told_by_name(write: Any, old: str, new: str, problem: str) -> None:
    assert old in TRAIN_CSV
    path = write(TRAIN_CSV.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        houses.read_train(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {problem}")
    assert message.endswith("; fetch the official file again") and "\n" not in message


def test_missing_files_name_their_stage(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.csv: is missing; run the stage `download_houses`"):
        houses.read_train(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        *(("1000", new, "column Area holds text") for new in ("large", "1500 sq", "inf", "nan")),
        ("Floors", "Stairs", "no rows of .*Floors"),
    ],
)
def test_a_test_table_of_other_columns(
    train: Table, write: Any, old: str, new: str, problem: str
) -> None:
    with pytest.raises(UserError, match=rf"test\.csv: {problem}"):
        houses.read_test(write(TEST_CSV.replace(old, new), "test.csv"), train)


# --- features ---------------------------------------------------------------------------------


def test_features_of_houses_without_prices(train: Table, write: Any) -> None:
    test = houses.read_test(write(TEST_CSV, "test.csv"), train)
    ours, theirs = houses.features(train, test)
    assert ours.dtype == theirs.dtype == np.float32
    area = np.array([1500, 1200, 900, 2000])
    mean, std = area.mean(), area.std(ddof=1)
    age = 15 * np.sqrt(2)  # standard deviation of 40 and 10, whose mean is 25
    # Area; Age; Quarter: missing, Hill, Mill; Alley: missing, Grvl, "a, b"; Floors, constant.
    # Unknown text is none of that known; another number of floors is that much more.
    expected = np.array(
        [
            [0, -5 / age, 0, 0, 0, 0, 0, 0, 1],
            [(1000 - mean) / std, 5 / age, 1, 0, 0, 0, 1, 0, 0],
        ]
    )
    np.testing.assert_allclose(theirs, expected, rtol=1e-6)


NUMBERS = st.none() | st.floats(-1e6, 1e6, width=32).map(float)
WORDS = st.none() | st.sampled_from(["a", "b", "B", "none", "7"])


@st.composite
def tables(draw: Any) -> dict[str, list[Any]]:
    """Columns of numbers and of text, each with some value."""
    n = draw(st.integers(1, 8))
    columns = {}
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([NUMBERS, WORDS]))
        values = st.lists(kind, min_size=n, max_size=n)
        columns[f"c{i}"] = draw(values.filter(lambda values: any(v is not None for v in values)))
    return columns


@given(columns=tables())
def test_features_are_those_of_pandas(columns: dict[str, list[Any]]) -> None:
    (features,) = houses.features(table(columns))
    np.testing.assert_allclose(features, book(columns), rtol=1e-4, atol=1e-4)


@given(columns=tables(), data=st.data())
def test_only_the_training_houses_tell(columns: dict[str, list[Any]], data: Any) -> None:
    """Of rows in any order; and with the training houses among the others, these look the same."""
    train = table(columns)
    n = len(train.ids)
    chosen = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1)))
    (alone,) = houses.features(train)
    with_others = houses.features(train, train.rows(chosen), train)
    assert all(map(np.array_equal, with_others, (alone, alone[chosen], alone)))


def test_a_column_that_training_houses_do_not_have_tells_nothing(train: Table) -> None:
    """Its numbers have no scale there, and no weight has learnt from them."""
    first, second = (
        Table(ids=np.array(["1", "2"]), columns={"area": np.array(x)}, prices=train.prices[:2])
        for x in ([np.nan, np.nan], [50_000.0, np.nan])
    )
    for table in houses.features(first, second):
        assert not table.any()


@pytest.mark.parametrize(
    "values", [[5.0, 5.0, 5.0], [5.0, None, None], [0.5, None, 0.5], [0.1, 0.1, 0.1]]
)
def test_a_constant_column_tells_nothing(values: list[Any]) -> None:
    (features,) = houses.features(table({"c": values}))
    assert np.array_equal(features, np.zeros((3, 1)))


def test_the_real_table_has_the_features_of_the_book(root: Path) -> None:
    folder = root.parent / "shared" / "data" / "house-prices"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    train = houses.read_train(folder / TRAIN)
    test = houses.read_test(folder / TEST, train)
    both = houses.features(train, test)
    assert [features.shape for features in both] == [(1460, 331), (1459, 331)]
    assert all(np.isfinite(features).all() for features in both)
    # The book's way, with its pandas: "None" was not yet a missing value.
    raw = pd.read_csv(folder / TRAIN, na_values=["NA", ""], keep_default_na=False)
    raw = raw.drop(columns=["Id", "SalePrice"])
    numeric = raw.columns[[pd.api.types.is_numeric_dtype(t) for t in raw.dtypes]]
    raw[numeric] = raw[numeric].apply(lambda x: (x - x.mean()) / x.std()).fillna(0)
    expected = pd.get_dummies(raw, dummy_na=True).to_numpy(np.float64)
    assert expected.shape == both[0].shape
    sums = np.sort(np.abs(both[0]).sum(0, dtype=np.float64))  # whatever the order of the columns
    np.testing.assert_allclose(sums, np.sort(np.abs(expected).sum(0)), rtol=1e-5)


# --- synthetic tables -------------------------------------------------------------------------


def test_synthetic_tables_have_all_that_real_ones_have(tmp_path: Path) -> None:
    write_all(tmp_path, synthetic.houses())
    train = houses.read_train(tmp_path / TRAIN)
    test = houses.read_test(tmp_path / TEST, train)
    assert len({*train.ids, *test.ids}) == sum(synthetic.NUM_HOUSES.values())
    for table in (train, test):
        kinds = {name: column.dtype.kind for name, column in table.columns.items()}
        assert kinds == {"Area": "f", "Age": "f", "Quarter": "U"}
        assert np.isnan(table.columns["Age"]).any()
        assert {*table.columns["Quarter"]} == {"", *synthetic.QUARTERS}
    # Large houses cost more: there is something to learn.
    assert np.corrcoef(train.columns["Area"], train.prices)[0, 1] > 0.7
