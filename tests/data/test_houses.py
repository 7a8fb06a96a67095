"""Tables of houses: how they are fetched, read and made into features."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.data import houses, made_up, sources
from refashion.data.catalogue import HOUSE_CHECKSUMS, HOUSE_FILES
from refashion.data.houses import Table

TRAIN, TEST = HOUSE_FILES["train"], HOUSE_FILES["test"]

KNOWN = """\
Id,Area,Age,Quarter,Alley,Floors,SalePrice
1,1500,40,Hill,NA,2,150000
2,1200,NA,Mill,NA,2,120000.5
3,900,,Hill,Grvl,2,90000
4,2000,10,NA,"a, b",2,310000
"""
ASKED = """\
Id,Area,Age,Quarter,Alley,Floors
5,NA,20,Harbour,Grvl,3
6,1000,30,,NA,NA
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write a table and give its path."""

    def write(text: str | bytes, name: str = "table.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def known(write: Any) -> Table:
    return houses.read_known(write(KNOWN))


def table(columns: dict[str, list[Any]]) -> Table:
    """A table of columns, None for what is missing."""
    n = len(next(iter(columns.values())))
    found = {}
    for name, values in columns.items():
        if all(x is None or isinstance(x, float) for x in values):
            found[name] = np.array([np.nan if x is None else x for x in values])
        else:
            found[name] = np.array(["" if x is None else x for x in values])
    ids = np.array([str(i) for i in range(n)])
    return Table(ids=ids, columns=found, prices=np.arange(1.0, n + 1))


def book(columns: dict[str, list[Any]]) -> np.ndarray:
    """Features as the book makes them with pandas, in the order of the columns."""
    parts = []
    for values in columns.values():
        if all(x is None or isinstance(x, float) for x in values):
            column = pd.Series(values, dtype="float64")
            spread = column.std(ddof=1)
            column = (column - column.mean()) / (spread if spread > 0 else 1.0)
            parts.append(column.fillna(0).to_numpy()[:, None])
        else:
            dummies = pd.get_dummies(pd.Series(values, dtype="object"), dummy_na=True)
            parts.append(np.roll(dummies.to_numpy(float), 1, axis=1))  # missing comes first
    return np.concatenate(parts, 1)


# --- reading ----------------------------------------------------------------------------------


def test_columns_are_numbers_or_text(known: Table) -> None:
    assert known.ids.tolist() == ["1", "2", "3", "4"]
    assert known.prices.tolist() == [150000, 120000.5, 90000, 310000]
    assert list(known.columns) == ["Area", "Age", "Quarter", "Alley", "Floors"]
    numbers = [name for name, c in known.columns.items() if c.dtype == np.float64]
    assert numbers == ["Area", "Age", "Floors"]
    np.testing.assert_array_equal(known.columns["Age"], [40, np.nan, np.nan, 10])
    assert known.columns["Quarter"].tolist() == ["Hill", "Mill", "Hill", ""]
    assert known.columns["Alley"].tolist() == ["", "", "Grvl", "a, b"]


def test_houses_whose_prices_are_asked_for(known: Table, write: Any) -> None:
    asked = houses.read_asked(write(ASKED, "asked.csv"), known)
    assert asked.ids.tolist() == ["5", "6"]
    assert np.isnan(asked.prices).all()
    np.testing.assert_array_equal(asked.columns["Area"], [np.nan, 1000])
    assert asked.columns["Quarter"].tolist() == ["Harbour", ""]
    assert {n: c.dtype.kind for n, c in asked.columns.items()} == {
        n: c.dtype.kind for n, c in known.columns.items()
    }


def test_columns_of_the_asked_table_are_those_of_the_known(known: Table, write: Any) -> None:
    """Whatever their order, what else there is, and whatever their values look like."""
    text = "Floors,More,Age,Id,Alley,Quarter,Area\n1,x,NA,5,7,8,9\n"
    asked = houses.read_asked(write(text, "asked.csv"), known)
    assert list(asked.columns) == list(known.columns)
    assert asked.columns["Alley"].tolist() == ["7"] and asked.columns["Quarter"].tolist() == ["8"]
    assert asked.columns["Area"].tolist() == [9.0] and np.isnan(asked.columns["Age"]).all()


def test_some_of_the_rows(known: Table) -> None:
    some = known.rows(np.array([2, 0]))
    assert some.ids.tolist() == ["3", "1"] and some.prices.tolist() == [90000, 150000]
    assert some.columns["Area"].tolist() == [900, 1500]
    assert some.columns["Quarter"].tolist() == ["Hill", "Hill"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("1,1500,40", "1,1500,40,41", "no rows of Id, SalePrice"),
        ("1,1500,40,Hill", "1,1500,40", "no rows of Id, SalePrice"),
        ("SalePrice", "Price", "no rows of Id, SalePrice"),
        ("Id,", "Name,", "no rows of Id, SalePrice"),
        (KNOWN, "", "no rows of Id, SalePrice"),
        (KNOWN, KNOWN.splitlines()[0] + "\n", "no rows of Id, SalePrice"),
        (KNOWN, "<html>Please accept our terms</html>\n", "no rows of Id, SalePrice"),
        ("150000", "-150000", "a price is no number > 0"),
        ("150000", "0", "a price is no number > 0"),
        ("150000", "NA", "a price is no number > 0"),
        ("150000", "cheap", "a price is no number > 0"),
        ("150000", "nan", "a price is no number > 0"),
        ("150000", "inf", "a price is no number > 0"),
        ("Hill", '"' + "x" * 200_000 + '"', "no table (field larger than field limit"),
    ],
)
def test_what_is_no_table_is_told_by_name(write: Any, old: str, new: str, problem: str) -> None:
    assert old in KNOWN
    path = write(KNOWN.replace(old, new, 1))
    with pytest.raises(UserError) as caught:
        houses.read_known(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {problem}")
    assert message.endswith("; fetch the official file again") and "\n" not in message


def test_bytes_that_are_no_text(write: Any) -> None:
    path = write(b"Id,SalePrice\n1,\xff\n")
    with pytest.raises(UserError, match=r"no table .*utf-8.*; fetch the official file again"):
        houses.read_known(path)


def test_missing_files_name_their_stage(tmp_path: Path, known: Table) -> None:
    for read in (houses.read_known, lambda path: houses.read_asked(path, known)):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "none.csv")
        expected = f"{tmp_path / 'none.csv'}: is missing; run the stage `download_houses`"
        assert str(caught.value) == expected


@pytest.mark.parametrize("text", ["large", "1500 sq", "inf", "nan"])
def test_text_in_a_column_of_numbers(known: Table, write: Any, text: str) -> None:
    path = write(ASKED.replace("1000", text), "asked.csv")
    with pytest.raises(UserError) as caught:
        houses.read_asked(path, known)
    assert str(caught.value) == f"{path}: column Area holds text where others hold numbers"


def test_asked_table_without_a_column(known: Table, write: Any) -> None:
    path = write("Id,Area,Age,Quarter,Alley\n5,1,2,Hill,NA\n", "asked.csv")
    with pytest.raises(UserError, match=r"asked\.csv: no rows of .*Floors"):
        houses.read_asked(path, known)


# --- digests ----------------------------------------------------------------------------------


def test_the_digest_moves_with_every_cell(write: Any) -> None:
    digests = {houses.digest(houses.read_known(write(KNOWN)))}
    header, *rows = [line.split(",") for line in KNOWN.replace('"a, b"', "ab").splitlines()]
    changes = 1
    for i in range(len(rows)):
        for j in range(len(header)):
            other = "Mill2" if header[j] in ("Quarter", "Alley") else "77"
            changed = [list(row) for row in rows]
            changed[i][j] = other
            text = "\n".join(",".join(row) for row in [header, *changed]) + "\n"
            digests.add(houses.digest(houses.read_known(write(text))))
            changes += 1
    assert len(digests) == changes


def test_the_digest_moves_with_names_and_the_order_of_rows(write: Any, known: Table) -> None:
    renamed = houses.read_known(write(KNOWN.replace("Area", "Size")))
    digests = {houses.digest(t) for t in (known, renamed, known.rows(np.array([1, 0, 2, 3])))}
    assert len(digests) == 3


def test_the_digest_is_the_same_again(write: Any, known: Table) -> None:
    again = houses.read_known(write(KNOWN.replace("NA", ""), "again.csv"))
    assert houses.digest(again) == houses.digest(known)  # both ways to write what is missing


# --- features ---------------------------------------------------------------------------------


def test_features_of_a_small_table(known: Table, write: Any) -> None:
    asked = houses.read_asked(write(ASKED, "asked.csv"), known)
    ours, others = houses.features(known, asked)
    assert ours.dtype == others.dtype == np.float32
    area = np.array([1500, 1200, 900, 2000])
    mean, spread = area.mean(), area.std(ddof=1)
    age = 15 * np.sqrt(2)  # standard deviation of 40 and 10, whose mean is 25
    # Area; Age; Quarter: missing, Hill, Mill; Alley: missing, Grvl, "a, b"; Floors, constant.
    expected = np.array(
        [
            [(1500 - mean) / spread, 15 / age, 0, 1, 0, 1, 0, 0, 0],
            [(1200 - mean) / spread, 0, 0, 0, 1, 1, 0, 0, 0],
            [(900 - mean) / spread, 0, 0, 1, 0, 0, 1, 0, 0],
            [(2000 - mean) / spread, -15 / age, 1, 0, 0, 0, 0, 1, 0],
        ]
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    # An unknown quarter is none of those known; another number of floors is that much more.
    expected = np.array(
        [
            [0, -5 / age, 0, 0, 0, 0, 1, 0, 1],
            [(1000 - mean) / spread, 5 / age, 1, 0, 0, 1, 0, 0, 0],
        ]
    )
    np.testing.assert_allclose(others, expected, rtol=1e-6)


NUMBERS = st.none() | st.floats(-1e6, 1e6, width=32).map(float)
WORDS = st.none() | st.sampled_from(["a", "b", "B", "none", "7"])


@st.composite
def tables(draw: Any) -> dict[str, list[Any]]:
    """Columns of numbers and of text, each with some value."""
    n = draw(st.integers(1, 8))
    found = {}
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from([NUMBERS, WORDS]))
        values = st.lists(kind, min_size=n, max_size=n)
        found[f"c{i}"] = draw(values.filter(lambda values: any(v is not None for v in values)))
    return found


@given(columns=tables())
def test_features_are_those_of_pandas(columns: dict[str, list[Any]]) -> None:
    (found,) = houses.features(table(columns))
    expected = book(columns)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@given(columns=tables(), data=st.data())
def test_only_the_known_houses_tell(columns: dict[str, list[Any]], data: Any) -> None:
    """Of rows in any order; and with the known houses among the others, these look the same."""
    known = table(columns)
    n = len(known.ids)
    chosen = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1)))
    (alone,) = houses.features(known)
    with_others = houses.features(known, known.rows(chosen), known)
    assert np.array_equal(with_others[0], alone)
    assert np.array_equal(with_others[1], alone[chosen])
    assert np.array_equal(with_others[2], alone)


def test_what_is_asked_for_changes_nothing_of_the_known(known: Table, write: Any) -> None:
    (alone,) = houses.features(known)
    for text in (ASKED, ASKED.replace("1000", "1e9").replace("Harbour", "Moon")):
        asked = houses.read_asked(write(text, "asked.csv"), known)
        assert np.array_equal(houses.features(known, asked)[0], alone)


@pytest.mark.parametrize(
    "values", [[5.0, 5.0, 5.0], [5.0, None, None], [0.5, None, 0.5], [0.1, 0.1, 0.1]]
)
def test_a_constant_column_tells_nothing(values: list[Any]) -> None:
    (found,) = houses.features(table({"c": values}))
    assert np.array_equal(found, np.zeros((3, 1)))


def test_features_are_of_the_same_scale() -> None:
    values = list(np.random.default_rng(0).normal(1e5, 3e4, 1000))
    (found,) = houses.features(table({"c": values}))
    assert found.mean() == pytest.approx(0, abs=1e-6)
    assert found.std(ddof=1) == pytest.approx(1, rel=1e-6)


def test_the_real_table_has_the_features_of_the_book(root: Path) -> None:
    folder = root.parent / "shared" / "data" / "house-prices"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    known = houses.read_known(folder / TRAIN)
    asked = houses.read_asked(folder / TEST, known)
    both = houses.features(known, asked)
    assert [found.shape for found in both] == [(1460, 331), (1459, 331)]
    assert all(np.isfinite(found).all() for found in both)
    # The book's way, with its pandas: "None" was not yet a missing value.
    raw = pd.read_csv(folder / TRAIN, na_values=["NA", ""], keep_default_na=False)
    raw = raw.drop(columns=["Id", "SalePrice"])
    numeric = raw.columns[[pd.api.types.is_numeric_dtype(t) for t in raw.dtypes]]
    raw[numeric] = raw[numeric].apply(lambda x: (x - x.mean()) / x.std()).fillna(0)
    expected = pd.get_dummies(raw, dummy_na=True).to_numpy(np.float64)
    assert expected.shape == both[0].shape
    sums = np.sort(np.abs(both[0]).sum(0, dtype=np.float64))  # whatever the order of the columns
    np.testing.assert_allclose(sums, np.sort(np.abs(expected).sum(0)), rtol=1e-5)


# --- made-up tables ---------------------------------------------------------------------------


def test_made_up_tables_are_always_the_same_bytes() -> None:
    digests = {k: hashlib.sha256(v.encode()).hexdigest() for k, v in made_up.tables().items()}
    assert digests == {
        TRAIN: "5922d704904338d8915b524241319b3e5977297f551f6fd0691b0ba0a467f600",
        TEST: "f6f85e589eebd86726e8ba9f459139406dec2a13161f1f5c8d14a3db18ccf563",
    }


def test_made_up_tables_have_all_that_real_ones_have(write: Any) -> None:
    texts = made_up.tables()
    known = houses.read_known(write(texts[TRAIN], TRAIN))
    asked = houses.read_asked(write(texts[TEST], TEST), known)
    assert len(known.ids) == made_up.NUM_HOUSES["train"]
    assert len(asked.ids) == made_up.NUM_HOUSES["test"]
    assert len({*known.ids, *asked.ids}) == len(known.ids) + len(asked.ids)
    for found in (known, asked):
        kinds = {name: column.dtype.kind for name, column in found.columns.items()}
        assert kinds == {"Area": "f", "Age": "f", "Quarter": "U"}
        assert np.isnan(found.columns["Age"]).any() and (found.columns["Quarter"] == "").any()
        assert {*found.columns["Quarter"]} == {"", *made_up.QUARTERS}
    # Large houses cost more: there is something to learn.
    assert np.corrcoef(known.columns["Area"], known.prices)[0, 1] > 0.7


# --- fetching ---------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout that is the user's own, without a network."""
    root = tmp_path / "home" / "checkout"
    root.mkdir(parents=True)
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "MAIN_ROOT", root)
    monkeypatch.setattr(paths, "NO_SOURCE", root / "logs" / "no-source.txt")
    monkeypatch.setattr(sources, "HOUSE_MIRRORS", ())
    monkeypatch.delenv(sources.VARIABLE, raising=False)
    return root


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Small files in place of the official ones."""
    files = {TRAIN: KNOWN.encode(), TEST: ASKED.encode()}
    checksums = {name: hashlib.sha1(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(sources, "HOUSE_CHECKSUMS", checksums)
    return files


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_made_up_tables_need_no_source(checkout: Path) -> None:
    (checkout / "logs").mkdir()
    paths.NO_SOURCE.write_text("of an earlier attempt")
    sources.fetch_houses("made_up", checkout / "houses")
    texts = made_up.tables()
    assert files_of(checkout / "houses") == {k: v.encode() for k, v in texts.items()}
    assert not paths.NO_SOURCE.exists()


def test_tables_from_the_folder_of_the_environment(
    checkout: Path,
    pinned: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = put(checkout.parent / "tables", pinned)
    monkeypatch.setenv(sources.VARIABLE, str(folder))
    sources.fetch_houses("kaggle", checkout / "houses")
    assert files_of(checkout / "houses") == pinned
    said = capsys.readouterr().out
    assert said == f"house_prices: official files from {folder}, checksums right\n"


def test_tables_from_beside_the_checkout(checkout: Path, pinned: dict[str, bytes]) -> None:
    put(checkout.parent / "shared" / "data" / "house-prices", pinned)
    sources.fetch_houses("kaggle", checkout / "houses")
    assert files_of(checkout / "houses") == pinned


def test_wrong_content_is_refused_by_name(
    checkout: Path, pinned: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = KNOWN.replace("150000", "150001").encode()
    folder = put(checkout.parent / "tables", {**pinned, TRAIN: other})
    monkeypatch.setenv(sources.VARIABLE, str(folder))
    with pytest.raises(UserError) as caught:
        sources.fetch_houses("kaggle", checkout / "houses")
    found, official = (hashlib.sha1(x).hexdigest() for x in (other, pinned[TRAIN]))
    message = str(caught.value)
    assert f"  {folder}: {TRAIN} has SHA1 {found}, not {official}" in message.splitlines()
    assert message.startswith("house_prices: no source has its files.")
    assert not (checkout / "houses").exists()
    assert paths.NO_SOURCE.read_text() == message + "\n"


def test_the_official_checksums_refuse_made_up_tables(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: text.encode() for name, text in made_up.tables().items()}
    monkeypatch.setenv(sources.VARIABLE, str(put(checkout.parent / "tables", made)))
    with pytest.raises(UserError, match=f"not {HOUSE_CHECKSUMS[TRAIN]}"):
        sources.fetch_houses("kaggle", checkout / "houses")
    assert not (checkout / "houses").exists()


def test_failure_keeps_the_tables_that_were_there(checkout: Path, pinned: dict[str, bytes]) -> None:
    folder = put(checkout / "houses", {TRAIN: b"old", TEST: b"old"})
    with pytest.raises(UserError, match="there is no such folder"):
        sources.fetch_houses("kaggle", folder)
    assert files_of(folder) == {TRAIN: b"old", TEST: b"old"}
