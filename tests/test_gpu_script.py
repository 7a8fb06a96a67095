"""``make gpu`` on the CPU: all of its parts, with torch and numpy alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ci

ALONE = """
import sys
from pathlib import Path
import numpy, torch, torch.utils.data  # and whatever these want,
torch.use_deterministic_algorithms(False)  # some of it not before it is used

benchmarks = Path(sys.argv[1])

class Refusing:
    allowed = {*sys.stdlib_module_names, "torch", "numpy", "refashion"}
    allowed |= {path.stem for path in benchmarks.glob("*.py")}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refusing())
sys.path.insert(0, str(benchmarks))
import gpu
from refashion.portable import functions
sys.argv = ["gpu.py", "--device", "cpu", "--quick", *sys.argv[2:]]
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


def environment(root: Path) -> dict[str, str]:
    """A GPU is hidden, and a few threads would only wait for each other."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return {**kept, **hidden, "PYTHONPATH": str(root / "src")}


def alone(root: Path, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with every package but torch and numpy refused."""
    return subprocess.run(
        [sys.executable, "-c", ALONE + script, str(root / "benchmarks"), *arguments],
        env=environment(root),
        capture_output=True,
        text=True,
    )


def make(root: Path, python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", "gpu", f"PYTHON={python}"],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def output(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """What a quick run writes and prints."""
    path = tmp_path_factory.mktemp("gpu") / "gpu.json"
    done = alone(root, WHOLE, "--images", "512", "--output", str(path))
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
    parts = {"self_test", "variants", "large", "epochs", "trainings", "stacks"}
    verdicts = {"failures", "unequal"}
    sizes = {"epochs_of_a_training", "images", "quick", "seconds"}
    machine = {"contract", "cores", "cpu", "cpu_capability", "device", "threads", "versions"}
    assert set(result) == parts | verdicts | sizes | machine
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


def test_a_difference_and_a_failure_give_1(root: Path, tmp_path: Path) -> None:
    """Neither keeps the parts after it from being done; the book's epochs end after a batch."""
    path = tmp_path / "gpu.json"
    done = alone(root, BROKEN, "--images", "1024", "--output", str(path))
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


def test_no_gpu(root: Path) -> None:
    done = make(root, sys.executable)
    told, *rest = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert told.startswith("error: device: cuda is not available")
    assert all(line.startswith("make: ***") for line in rest)


def test_no_torch(root: Path) -> None:
    done = make(root, f"{sys.executable} -S")
    told, *rest = done.stderr.splitlines()
    assert done.returncode == 2 and not done.stdout
    assert told.startswith("error: ") and "no torch or no numpy" in told
    assert all(line.startswith("make: ***") for line in rest)
