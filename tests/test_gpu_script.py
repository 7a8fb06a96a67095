"""``make gpu`` on the CPU: all of its parts, with torch and numpy alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import alone

pytestmark = pytest.mark.ci

QUICK = """
import gpu
from refashion.portable import functions
sys.argv = ["gpu.py", "--device", "cpu", "--quick", *sys.argv[1:]]
"""
WHOLE = "sys.exit(gpu.main())"
BROKEN = """
gpu.PARTS = ("large", "no_such_part", "epochs", "stacks")
gpu.BOOK_SECONDS = 0.0
calls = iter(range(100))
exp = functions.exp
functions.exp = lambda x: exp(x) + next(calls)
sys.exit(gpu.main())
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
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """What a quick run writes and prints."""
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    done = alone.run(QUICK + WHOLE, "--images", "512", "--output", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(path.read_text()), done.stdout


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


def test_a_difference_and_a_failure_give_1(tmp_path: Path) -> None:
    """Neither keeps the parts after it from being done; the book's epochs end after a batch."""
    path = tmp_path / "gpu.json"
    done = alone.run(QUICK + BROKEN, "--images", "1024", "--output", str(path))
    assert done.returncode == 1, done.stderr
    result = json.loads(path.read_text())
    assert result["unequal"] == ["exp, 10,000 numbers"]
    assert result["failures"]["no_such_part"].startswith("AttributeError")
    assert all(row["equal"] for row in result["stacks"])
    assert all(result["epochs"][v]["book"]["share"] == 1 / 4 for v in VARIANTS)
    assert "The book's are scaled from 25% of an epoch or more." in done.stdout
    assert "exp, 10,000 numbers: DIFFERENT" in done.stdout
    assert done.stdout.endswith(
        "not as promised: exp, 10,000 numbers\nnot as promised: no_such_part\n"
    )


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
