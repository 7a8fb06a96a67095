"""The bits of houses: known, and the same whatever the processor can do."""

import hashlib
import tempfile
from pathlib import Path
from random import Random

import numpy as np
import pytest

from refashion.base.errors import UserError
from refashion.data import houses, synthetic
from refashion.data.catalogue import HOUSE_FILES
from refashion.data.houses import Table

GOLDEN = "85f84b8a904004c4bea95b3f87d63d3296b4cfc12a8f31c6c3a6f1a8293c2610"


def digest() -> str:
    """SHA-256 of synthetic houses, of their features, and of what standardises many columns."""
    train, test = tables()
    sha = hashlib.sha256()
    for table in (train, test):
        sha.update(houses.digest(table).encode())
    for features in houses.features(train, test):
        sha.update(features.astype("<f4").tobytes())
    numbers = Random(0)
    for n in range(30_000):
        column = [numbers.random() * 10 ** (n % 7) for _ in range(2 + n % 3)]
        mean, std = houses.mean_std(column)
        sha.update(f"{mean.hex()} {std.hex()}\n".encode())
    return sha.hexdigest()


def tables() -> tuple[Table, Table]:
    """The synthetic tables, as they are read from their files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in synthetic.houses().items():
            (Path(folder) / name).write_bytes(content)
        train = houses.read_train(Path(folder) / HOUSE_FILES["train"])
        return train, houses.read_test(Path(folder) / HOUSE_FILES["test"], train)


def test_bits_are_the_known_ones() -> None:
    assert digest() == GOLDEN


def test_the_digest_is_of_names_and_cells_whatever_python_can_print() -> None:
    """Characters of any version of Unicode count as their escapes."""
    text = ["café", "\u00ad", "\U0001fae9"]  # printable; never; since Unicode 16
    numbers, prices = np.array([1.5, np.nan, -2]), np.array([3.0, 4, 5])
    columns = {"c": np.array(text), "n": numbers}
    table = Table(ids=np.array(["1", "2", "3"]), columns=columns, prices=prices)
    escaped = rb"['caf\xe9', '\xad', '\U0001fae9']"
    content = b"1\n2\n3\nc\n" + escaped + b"\nn\n" + numbers.astype("<f8").tobytes()
    content += b"\nSalePrice\n" + prices.astype("<f8").tobytes()
    assert houses.digest(table) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("column", [[1e200, -1e200, 3.0], [1e-200, 2e-200], [1e308, 1e308, 1.0]])
def test_a_column_beyond_the_floats_is_refused(column: list[float]) -> None:
    ids, prices = np.array(["1", "2", "3"][: len(column)]), np.ones(len(column))
    table = Table(ids=ids, columns={"Area": np.array(column)}, prices=prices)
    with pytest.raises(UserError, match=r"houses: column Area: .*; fetch the official file again"):
        houses.features(table)
