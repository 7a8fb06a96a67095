"""One set of tables, for three kinds of reader."""

from pathlib import Path

import pytest

from refashion.base.workspace import Workspace
from refashion.reporting import side_by_side, tables
from refashion.reporting.side_by_side import Comparison
from refashion.runs import listing
from synthetic import write_study


@pytest.fixture
def comparison(workspaces: dict[str, Workspace]) -> Comparison:
    names = [("main", "mlp"), ("seed 1", "mlp"), ("seed 2", "mlp"), ("main", "softmax")]
    return side_by_side.of(listing.variant(workspaces[where], name) for where, name in names)


def test_markdown(comparison: Comparison) -> None:
    blocks = tables.markdown(comparison).split("### ")[1:]
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


def test_terminal_shows_values_as_they_are(
    comparison: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    comparison.notes.append("[red]no markup[/red]")
    tables.show(comparison)
    shown = capsys.readouterr().out
    for text in ("[256]", "0.076", "51 of 60", "not significant", "[red]no markup[/red]"):
        assert text in shown


def test_runs_of_a_study_show_all_their_metrics(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_study(workspace, "weight_decay", "decay_0", "decay_3")
    first, second = listing.of_study(workspace, "weight_decay")
    del first.metrics["train_loss"], second.metrics["l2_std"]
    settings, metrics = tables.tables(side_by_side.of([first, second]))
    assert tables.rows_of(settings)[1:] == [["decay_0", "0.0"], ["decay_3", "1.0"]]
    assert metrics.title == "Metrics: mean ± standard deviation"
    assert tables.rows_of(metrics) == [
        ["run", "l2", "seeds", "train_loss"],
        ["decay_0", "0.2500 ± 0.1", "20", "-"],
        ["decay_3", "1.250", "20", "0.2500"],
    ]
