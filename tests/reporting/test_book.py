"""All pages of a workspace: linked to each other, and none of what has not run."""

import re
from html import escape
from pathlib import Path

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reporting import book
from refashion.studies import k_fold
from synthetic import write_run, write_workspace

MLP = {"mlp": {"hidden": [16], "lr": 0.1}}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return write_workspace(tmp_path_factory.mktemp("workspace"), variants=MLP)


@pytest.fixture(scope="module")
def pages(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """All pages, with that of one study that ran in two folds."""
    for i, name in enumerate(("mlp", "mlp.fold_1", "mlp.fold_2")):
        metrics = dict.fromkeys(
            ("train_loss", "train_accuracy", "validation_accuracy"), 0.6 + i / 10
        )
        spread = {"validation_accuracy_std": 0.1, "folds": 2}
        parent = "k_fold/mlp" if i else None
        own = metrics if i else metrics | spread
        write_run(workspace, f"k_fold/{name}", [metrics], own, parent=parent)
    return list(book.write(workspace, tmp_path_factory.mktemp("new") / "folder" / "report.html"))


def links(page: Path) -> list[str]:
    """Files that a page links to."""
    return re.findall(r'<a href="([^"#]+)"', page.read_text())


def test_every_link_leads_to_a_page(pages: list[Path]) -> None:
    names = [page.name for page in pages]
    assert names == ["report.html", "report-k_fold.html", "report-explained.html"]
    assert set(pages[0].parent.iterdir()) == set(pages)
    for page in pages:
        text = page.read_text()
        assert links(page) == names
        assert re.findall(r'<a href="([^"]+)" aria-current="page"', text) == [page.name]
        assert text.count("<h1>") == 1 and "<img " in text
    assert "mlp: the images that it takes for each class" in pages[-1].read_text()


def test_page_of_a_study(pages: list[Path]) -> None:
    """Folds are in the picture; tables and sections are of what sums them up."""
    text = pages[1].read_text()
    assert f"<title>{k_fold.TITLE}</title>" in text
    assert all(escape(note) in text for note in k_fold.NOTES)
    assert "<td>0.6000 ± 0.1</td>" in text and "fold_1" not in text
    assert re.findall('alt="([^"]+)"', text) == [k_fold.TITLE, "mlp: learning curves"]


def test_pages_are_canonical(workspace: Workspace, pages: list[Path], tmp_path: Path) -> None:
    for page, again in zip(pages, book.write(workspace, tmp_path / "report.html"), strict=True):
        assert page.read_bytes() == again.read_bytes()


def test_what_has_not_run_has_no_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workspace = write_workspace(tmp_path, variants=MLP)
    (workspace.models / "mlp" / "weights.safetensors").unlink()
    pages = list(book.write(workspace, tmp_path / "page.htm"))
    assert [page.name for page in pages] == links(pages[0]) == ["page.htm"]
    told = capsys.readouterr().err
    assert told.startswith("softmax and cross-entropy are not explained: ")
    assert told.count("\n") == 1


def test_results_that_are_missing_are_named(tmp_path: Path) -> None:
    workspace = write_workspace(tmp_path, variants=MLP)
    (workspace.evaluation / "mlp" / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"^mlp: its metrics\.json is missing; run `dvc repro`"):
        next(book.write(workspace, tmp_path / "page.html"))
