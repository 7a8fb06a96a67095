"""``make gpu`` on the CPU: all of its parts, with torch and numpy alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import alone

pytestmark = pytest.mark.ci

RUNS = """
import gpu
from refashion.portable import functions

quick = ["gpu.py", "--device", "cpu", "--quick", "--images", "512", "--output"]
_, whole, broken = sys.argv
sys.argv = [*quick, whole]
print("exit code:", gpu.main())

gpu.PARTS = ("large", "no_such_part", "epochs", "stacks")
gpu.BOOK_SECONDS = 0.0
gpu.NETWORKS = {"softmax": gpu.NETWORKS["softmax"]}
calls = iter(range(100))
exp = functions.exp
functions.exp = lambda x: exp(x) + next(calls)
sys.argv = [*quick, broken]
print("exit code:", gpu.main())
"""
PRODUCTS = ("auto", "int8", "float64")
VARIANTS = ("softmax", "mlp", "dropout")


def make(root: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "gpu", f"PYTHON={python}"],
        cwd=root,
        env=alone.ENVIRONMENT,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict, str]]:
    """What two quick runs write and print; in the second are a difference and a failure."""
    paths = [tmp_path_factory.mktemp("gpu") / f"{name}.json" for name in ("whole", "broken")]
    done = alone.run(RUNS, *map(str, paths))
    assert done.stdout.count("exit code: ") == 2, done.stdout + done.stderr
    whole, broken, end = done.stdout.split("exit code: ")
    assert broken.startswith("0\n") and end == "1\n", done.stdout + done.stderr
    printed = whole, broken.removeprefix("0\n")
    return [(json.loads(p.read_text()), told) for p, told in zip(paths, printed, strict=True)]


@pytest.fixture(scope="module")
def output(runs: list[tuple[dict, str]]) -> tuple[dict, str]:
    """What the whole one writes and prints."""
    return runs[0]


def test_every_part_is_done_and_equal(output: tuple[dict, str]) -> None:
    result, _ = output
    assert result["unequal"] == [] and result["failures"] == {}
    assert result["images"]["number"] == 512
    assert result["images"]["source"] in ("official", "made")
    assert [row["way"] for row in result["self_test"]] == list(PRODUCTS)
    assert all(row["differences"] == {} for row in result["self_test"])
    assert [row["what"] for row in result["variants"]] == list(VARIANTS)
    for row in result["variants"]:
        assert set(row["digests"]) == {"cpu", *PRODUCTS} and len(row["digests"]["cpu"]) == 64
    names = {row["what"].partition(",")[0] for row in result["large"]}
    assert {"permutation", "bernoulli_rows", "normal", "exp", "log", "sqrt"} <= names
    for row in (*result["variants"], *result["large"]):
        assert row["equal"] and len(set(row["digests"].values())) == 1
    assert [row["models"] for row in result["stacks"]] == [1, 4]
    assert all(row["equal"] and row["seconds"] > 0 for row in result["stacks"])


def test_times_are_taken(output: tuple[dict, str]) -> None:
    result, _ = output
    for variant in VARIANTS:
        contenders = result["epochs"][variant]
        assert set(contenders) == {"portable", "native", "products", "book"}
        for row in contenders.values():
            assert row["median"] > 0 and row["share"] == 1
        assert set(result["trainings"][variant]) == {"portable", "native"}


def test_results_name_what_they_depend_on_and_no_path(output: tuple[dict, str]) -> None:
    result, _ = output
    sizes = {"epochs_of_a_training", "images", "quick", "seconds"}
    machine = {"contract", "cores", "cpu", "cpu_capability", "device", "threads", "versions"}
    assert sizes | machine < set(result)
    assert '"/' not in json.dumps(result)


def test_tables_are_printed(output: tuple[dict, str]) -> None:
    _, printed = output
    for title in (
        "Self-test",
        "Weights after an epoch: the CPU's bits and the device's",
        "Large sizes: the CPU's bits and the device's",
        "Seconds per epoch of 512 images, medians",
        "Seconds of 2 epochs",
        "Stacks of small models",
    ):
        assert f"\n\n{title}\n" in printed
    assert "DIFFERENT" not in printed


def test_a_difference_and_a_failure_give_1(runs: list[tuple[dict, str]]) -> None:
    """Neither keeps the parts after it from being done; the book's epochs end after a batch."""
    _, (result, told) = runs
    assert result["unequal"] == ["exp, 10,000 numbers"]
    assert result["failures"]["no_such_part"].startswith("AttributeError")
    assert all(row["equal"] for row in result["stacks"])
    assert result["epochs"]["softmax"]["book"]["share"] == 1 / 2
    assert "The book's are scaled from 50% of an epoch or more." in told
    assert "exp, 10,000 numbers: DIFFERENT" in told
    assert told.endswith("not as promised: exp, 10,000 numbers\nnot as promised: no_such_part\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [("", "error: device: cuda is not available"), (" -S", "error: ")],
    ids=["no GPU", "no torch"],
)
def test_what_is_missing_is_told(root: Path, options: str, message: str) -> None:
    done = make(root, sys.executable + options)
    told, *rest = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert told.startswith(message) and (not options or "no torch or no numpy" in told)
    assert all(line.startswith("make: ***") for line in rest)
