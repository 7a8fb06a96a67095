"""`refashion compare` and `refashion report`, as a user calls them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from refashion import cli
from refashion.base import paths


def refashion(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def test_compare_runs_by_id_and_experiment(ids: dict[str, str]) -> None:
    """One of them carries a params.yaml that this version refuses."""
    done = refashion("compare", ids["main mlp"][:8], "puffy-hake", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {name: run["run_id"] for name, run in found["runs"].items()} == {
        f"mlp seed={seed}": ids[f"{root} mlp"]
        for seed, root in enumerate(("main", "seed 1", "seed 2"))
    }
    assert [run["settings"] for run in found["runs"].values()] == [{"seed": s} for s in range(3)]
    assert found["seeds"]["mlp"]["seeds"] == [0, 1, 2]
    assert len(found["pairs"]) == 3


def test_compare_on_a_terminal_and_for_github(ids: dict[str, str]) -> None:
    one = ids["main mlp"], ids["main softmax"]
    assert "may be luck" in refashion("compare", *one).stdout
    assert "| mlp vs softmax |" in refashion("compare", *one, "--markdown").stdout


@pytest.mark.usefixtures("images")
def test_compare_writes_a_page(ids: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    done = refashion("compare", ids["seed 1 mlp"], "--html", str(file))
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    text = file.read_text()
    assert text.count("<img ") == 4
    assert ids["seed 1 mlp"] in text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name at least one RUN"),
        (["a", "--json", "--markdown"], "choose one of --json, --markdown and --html"),
        (["--tag", "variant"], "'variant' is not KEY=VALUE"),
        (["dead-cod"], "error: dead-cod: there is no such run"),
        (["--tag", "variant=softmax"], "different data sets, fashion_mnist and mnist"),
    ],
)
def test_mistakes_are_told(ids: dict[str, str], arguments: list[str], told: str) -> None:
    done = refashion("compare", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["compare", "report"])
def test_help_gives_examples_on_lines_of_their_own(command: str) -> None:
    lines = refashion(command, "--help").stdout.splitlines()
    (at,) = (i for i, line in enumerate(lines) if line.startswith("  Example: refashion"))
    assert lines[at + 1].split()[:2] == ["refashion", command]


def test_report_needs_no_mlflow(
    roots: dict[str, Path], made_up: SimpleNamespace, tmp_path: Path
) -> None:
    root = shutil.copytree(roots["main"], tmp_path / "checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(paths.ROOT / "src", root / "src", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-c", "from refashion.cli import main; main()", "report"],
        cwd=root,
        env=made_up.environment(PYTHONPATH=str(root / "src")),
        capture_output=True,
        text=True,
    )
    file = root / "build" / "report.html"
    assert (done.returncode, done.stdout) == (0, f"{file}\n")
    assert done.stderr.startswith("softmax and cross-entropy are not explained: ")
    assert done.stderr.count("\n") == 1
    assert file.read_text().count("<img ") == 3 * 4
    assert not (root / "mlflow.db").exists()
