"""`refashion compare` and `refashion report`, as a user calls them."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow.entities import Run as MlflowRun
from mlflow.entities import RunData, RunInfo, RunTag

from refashion import cli
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reporting import choice
from refashion.tracking import store
from synthetic import write_workspace


def refashion(workspace: Workspace, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, obj=workspace)


def test_runs_are_chosen_each_once(main: Workspace, ids: dict[str, str]) -> None:
    def chosen(*texts: str, experiment: str | None = None, tag: str | None = None) -> list[str]:
        runs = choice.choose(texts, experiment, tag, connected)
        return sorted(name for run in runs for name in ids if ids[name] == run.info.run_id)

    first, seeds = ids["main mlp"], ["seed 1 mlp", "seed 2 mlp"]
    with store.connect(main, reading=True) as connected:
        assert chosen(first[:8], first) == ["main mlp"]
        assert chosen(first, "puffy-hake") == ["main mlp", *seeds]
        assert chosen(experiment="puffy-hake") == seeds
        assert chosen(experiment="mnist", tag="name=softmax") == ["mnist softmax"]
        with pytest.raises(UserError, match=r"^experiment mnist with tag name=mlp: there is no"):
            chosen(first, experiment="mnist", tag="name=mlp")
        assert chosen(tag="name=softmax") == ["main softmax", "mnist softmax"]


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ({"a": None, "b": None}, "ab"),
        ({"a": None, "a1": "a", "a2": "a"}, ["a1", "a2"]),  # a sweep, and its trials
        ({"a": None, "a1": "a", "b": None, "b1": "b"}, "ab"),  # variants, and their folds
        ({"a1": "a", "a2": "a"}, ["a1", "a2"]),
        ({"a": None}, "a"),
    ],
)
def test_what_sums_up_others_is_not_mixed_with_them(
    runs: dict[str, str | None], chosen: Sequence[str]
) -> None:
    found = [
        MlflowRun(
            RunInfo(i, "0", "me", "FINISHED", 0, 0, "active"),
            RunData(tags=[RunTag("mlflow.parentRunId", parent)] if parent else []),
        )
        for i, parent in runs.items()
    ]
    assert [run.info.run_id for run in choice.comparable(found)] == list(chosen)


def test_compare_runs_by_id_and_experiment(main: Workspace, ids: dict[str, str]) -> None:
    done = refashion(main, "compare", ids["main mlp"][:8], "puffy-hake", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert {name: run["run_id"] for name, run in told["runs"].items()} == {
        f"mlp seed={seed}": ids[f"{name} mlp"]
        for seed, name in enumerate(("main", "seed 1", "seed 2"))
    }
    assert [run["settings"] for run in told["runs"].values()] == [{"seed": s} for s in range(3)]
    assert told["seeds"]["mlp"]["seeds"] == [0, 1, 2]
    assert len(told["pairs"]) == 3


def test_compare_for_github(main: Workspace, ids: dict[str, str]) -> None:
    runs = ids["main mlp"], ids["main softmax"], "puffy-hake"
    blocks = refashion(main, "compare", *runs, "--markdown").stdout.split("### ")[1:]
    titles = [block.partition("\n")[0] for block in blocks]
    assert titles[:3] == ["Settings that differ", "Test accuracy", "Metrics"]
    for block in blocks:
        rows = block.strip().splitlines()[2:]
        assert len(rows) > 2 and set(rows[1]) == {"|", "-"}
        assert len({row.count("|") for row in rows}) == 1
        assert all(row.startswith("|") and row.endswith("|") for row in rows)
    assert "| mlp seed=1 | 1.000 | 0.8500 | 0.5000 | 0.04000 |" in blocks[2]
    assert "| mlp | 3 | [0,1,2] | 0.7833 ± 0.076 |" in blocks[3]
    assert "mlp seed=0 vs mlp seed=1" in blocks[4]


def test_compare_on_a_terminal(
    main: Workspace, ids: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = refashion(main, "compare", ids["main softmax"], "puffy-hake").stdout
    assert all(text in shown for text in ("[256]", "± 0.071", "48 of 60", "not significant"))


@pytest.mark.usefixtures("undrawn")
def test_compare_writes_a_page(main: Workspace, ids: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    done = refashion(main, "compare", "puffy-hake", ids["main softmax"], "--html", str(file))
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    text = file.read_text()
    assert text.count("<img ") == 3 + 3 * 6
    assert "test accuracy by hidden" in text and "standard deviation over seeds" in text
    assert all(ids[name] in text for name in ("seed 1 mlp", "seed 2 mlp", "main softmax"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name at least one RUN"),
        (["a", "--json", "--markdown"], "choose one of --json, --markdown and --html"),
        (["--tag", "name"], "'name' is not KEY=VALUE"),
        (["dead-cod"], "error: dead-cod: there is no such run at sqlite:"),
        (["--experiment", "kmnist"], "error: experiment kmnist: there is no such run"),
        (["--tag", "name=cnn"], "error: tag name=cnn: there is no such run"),
        (["--tag", "name=softmax"], "different data sets, fashion_mnist and mnist"),
    ],
)
@pytest.mark.usefixtures("ids")
def test_mistakes_are_told(main: Workspace, arguments: list[str], told: str) -> None:
    done = refashion(main, "compare", *arguments)
    assert done.exit_code == 2
    assert told in done.stderr
    assert done.stdout == ""


def test_report_needs_no_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import of it would fail
    workspace = write_workspace(tmp_path, variants={"mlp": {"hidden": [16], "lr": 0.1}})
    done = refashion(workspace, "report")
    pages = [tmp_path / "build" / name for name in ("report.html", "report-explained.html")]
    assert (done.exit_code, done.stdout.split()) == (0, list(map(str, pages)))
    assert pages[0].read_text().count("<img ") == 6
