"""One set of tables, for three kinds of reader."""

from pathlib import Path

import pytest
from rich.table import Table

from refashion.reporting import side_by_side, tables
from refashion.reporting.side_by_side import Comparison
from refashion.tracking.results import Results


@pytest.fixture
def found(roots: dict[str, Path]) -> Comparison:
    sides = [("main", "mlp"), ("seed 1", "mlp"), ("seed 2", "mlp"), ("main", "softmax")]
    return side_by_side.of([Results(root=roots[name], variant=v) for name, v in sides])


def test_markdown(found: Comparison) -> None:
    blocks = tables.markdown(found).split("### ")[1:]
    titles = [block.partition("\n")[0] for block in blocks]
    assert titles[:3] == ["Settings that differ", "Test accuracy", "Other metrics on the test set"]
    for block in blocks:
        rows = block.strip().splitlines()[2:]
        assert len(rows) > 2 and set(rows[1]) == {"|", "-"}
        assert len({row.count("|") for row in rows}) == 1
        assert all(row.startswith("|") and row.endswith("|") for row in rows)
    assert "| mlp | 3 | [0,1,2] | test accuracy | 0.7833 | 0.0764 |" in blocks[3]
    assert "| - |" in blocks[2]  # a metric that these evaluations do not have
    assert "mlp seed=0 vs mlp seed=1" in blocks[4]


def test_terminal_shows_values_as_they_are(
    found: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    found.notes.append("[red]no markup[/red]")
    tables.show(found)
    shown = capsys.readouterr().out
    for text in ("[256]", "0.0764", "51 of 60", "may be luck", "[red]no markup[/red]"):
        assert text in shown


def test_html_is_escaped() -> None:
    table = Table("a<b", "c", title="T & U")
    table.add_row("<script>", "x")
    text = tables.html(table)
    assert "<h2>T &amp; U</h2>" in text
    assert '<th scope="row">&lt;script&gt;</th><td>x</td>' in text
    assert "<script>" not in text
