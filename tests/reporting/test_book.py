"""All pages of a workspace: linked to each other, and none of what has not run."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from refashion.base import params, paths
from refashion.base.errors import UserError
from refashion.base.params.studies import WeightDecayParams
from refashion.reporting import book
from refashion.studies import arm, weight_decay
from refashion.tracking import study_figures

DECAY = WeightDecayParams(
    **{"weight_decays": (0.0, 3.0), "train": 6, "test": 8, "inputs": 10, "lr": 0.003},
    **{"batch_size": 3, "epochs": 2, "seeds": 2},
)


@pytest.fixture
def workspace(roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a made-up workspace the running one."""
    root = shutil.copytree(roots["main"], tmp_path / "checkout")
    anchor = paths.ROOT
    for name, path in list(vars(paths).items()):
        if name.isupper() and name != "MAIN_ROOT":
            monkeypatch.setattr(paths, name, root / path.relative_to(anchor))
    found = params.load(paths.PARAMS)
    monkeypatch.setattr(params, "load", lambda *_: found)
    paths.COMPARISON.write_text('{"variants": {"mlp": {"accuracy": 0.9}}}')
    return root


def run_study() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    arm.save("weight_decay", weight_decay.run(DECAY, 0, "portable", "cpu"))
    torch.set_num_threads(threads)
    study_figures.draw.cache_clear()


def links(page: Path) -> set[str]:
    """Files that a page links to."""
    return set(re.findall(r'<a href="([^"#]+)"', page.read_text()))


@pytest.mark.usefixtures("workspace")
def test_every_link_leads_to_a_page(tmp_path: Path) -> None:
    run_study()
    report = tmp_path / "new folder" / "report.html"
    pages = list(book.write(report))
    assert [page.name for page in pages] == [
        *("report.html", "report-weight_decay.html", "report-explained.html"),
    ]
    assert set(report.parent.iterdir()) == set(pages)
    names = {page.name for page in pages}
    for page in pages:
        assert links(page) | {page.name} == names
        text = page.read_text()
        assert text.count("<h1>") == 1 and "<img " in text
    explanation = pages[-1].read_text()
    assert "mlp: the images that it takes for each class" in explanation


@pytest.mark.usefixtures("workspace")
def test_a_study_that_has_not_run_has_no_page(tmp_path: Path) -> None:
    pages = list(book.write(tmp_path / "page.htm"))
    assert [page.name for page in pages] == ["page.htm", "page-explained.htm"]
    assert links(pages[0]) == {"page-explained.htm"}


@pytest.mark.usefixtures("workspace")
def test_pages_are_canonical(tmp_path: Path) -> None:
    run_study()
    written = []
    for _ in range(2):
        written.append([page.read_bytes() for page in book.write(tmp_path / "report.html")])
        study_figures.draw.cache_clear()
    assert written[0] == written[1]


@pytest.mark.usefixtures("workspace")
def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name a file that can be written"):
        next(book.write(tmp_path))
