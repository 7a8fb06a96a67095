"""The pages of the studies need nothing but themselves, and show what the studies found."""

import base64
import re
import runpy
from collections.abc import Iterator
from dataclasses import astuple
from html import escape
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from refashion import studies as names
from refashion.base import files
from refashion.base.params.studies import (
    InitialisationParams,
)
from refashion.data import made_up
from refashion.reporting import studies
from refashion.studies import house_prices, initialisation, k_fold, weight_decay
from refashion.tracking import results, study_figures

PNG = b"\x89PNG\r\n\x1a\n"
LINKS = {"report.html": "Variants", "report-house_prices.html": "House prices & more"}
TINY = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "studies" / "tiny.py")))


def start(root: Path, p: InitialisationParams) -> None:
    """Run the study of where weights start."""
    arms, gradients = initialisation.run(p, TINY.images(), 0, "portable", "cpu")
    TINY.save(root, "initialisation", arms)
    file = root / "reports" / "studies" / "initialisation" / "gradients.csv"
    files.write_csv(file, ["arm", "depth", "layer", "norm"], map(astuple, gradients))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that wait for one another take many times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which every study has run."""
    root = tmp_path_factory.mktemp("checkout")
    for name, text in made_up.tables().items():
        (root / name).write_text(text)
    TINY.save(root, "weight_decay", weight_decay.run(TINY.DECAY, 0, "portable", "cpu"))
    TINY.save(root, "house_prices", house_prices.run(TINY.HOUSES, root, 0, "portable", "cpu")[0])
    TINY.save(
        root, "k_fold", k_fold.run(2, TINY.VARIANTS, [TINY.images(40), TINY.images(20)], 0, "cpu")
    )
    start(root, TINY.STARTS)
    return root


def rows(text: str) -> dict[str, list[str]]:
    """Cells of the only table, by what begins the row."""
    (table,) = re.findall(r"<table>.*</table>", text, re.S)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in table.split("<tr>")[1:]]
    return {first: others for first, *others in found}


@pytest.mark.parametrize("study", names.NAMES)
def test_page_of_a_study(root: Path, tmp_path: Path, study: str) -> None:
    path = tmp_path / "page.html"
    studies.write(root, study, path, LINKS)
    text = path.read_text()
    assert re.findall(r"<title>(.*?)</title>", text) == [studies.TITLES[study]]
    assert re.findall(r"<h1>(.*?)</h1>", text) == [studies.TITLES[study]]
    for note in studies.NOTES[study]:
        assert escape(note) in text
    for target, name in LINKS.items():
        assert f'<a href="{target}">{escape(name)}</a>' in text
    (image,) = re.findall(r'src="data:image/png;base64,([\w+/=]+)"', text)
    assert base64.b64decode(image) == study_figures.draw(root, study)
    assert "$" not in text
    studies.write(root, study, tmp_path / "again.html", LINKS)
    assert (tmp_path / "again.html").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("study", names.NAMES)
def test_page_needs_nothing_from_elsewhere(root: Path, tmp_path: Path, study: str) -> None:
    studies.write(root, study, tmp_path / "page.html", {})
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text and "http" not in text and "@import" not in text
    assert {source[:5] for source in re.findall(r'(?:src|href)="([^"]*)', text)} == {"data:"}


@pytest.mark.parametrize("study", names.NAMES)
def test_table_holds_the_metrics(root: Path, tmp_path: Path, study: str) -> None:
    studies.write(root, study, tmp_path / "page.html", {})
    header, *found = rows((tmp_path / "page.html").read_text()).items()
    arms = [one for one in results.arms(root, study) if one.parent is None]
    assert header[0] == "arm" and [name for name, _ in found] == [one.arm for one in arms]
    for one, (_, cells) in zip(arms, found, strict=True):
        told = dict(zip(header[1], cells, strict=True))
        for name, value in one.metrics.items():
            if name.endswith("_deviation"):
                continue
            mean, *deviation = told[name].split(" ± ")
            assert float(mean) == pytest.approx(value, rel=1e-3)
            expected = one.metrics.get(f"{name}_deviation")
            assert len(deviation) == (expected is not None)
            if expected is not None:
                assert float(deviation[0]) == pytest.approx(expected, rel=0.06)


def test_one_seed_has_no_deviation(tmp_path: Path) -> None:
    p = TINY.DECAY.model_copy(update={"seeds": 1})
    TINY.save(tmp_path, "weight_decay", weight_decay.run(p, 0, "portable", "cpu"))
    studies.write(tmp_path, "weight_decay", tmp_path / "page.html", {})
    found = rows((tmp_path / "page.html").read_text())
    assert found["decay_3"][found["arm"].index("seeds")] == "1"
    assert not any("±" in cell for cells in found.values() for cell in cells)


def test_a_metric_that_an_arm_lacks_is_a_dash(root: Path) -> None:
    first, second, *_ = results.arms(root, "initialisation")
    del first.metrics["accuracy"]
    table = studies.table([first, second])
    (column,) = (c for c in table.columns if c.header == "accuracy")
    assert list(column.cells) == ["-", f"{second.metrics['accuracy']:.4g}"]


def test_every_study_has_a_page_and_a_picture() -> None:
    assert set(studies.TITLES) == set(studies.NOTES) == set(names.NAMES)
    assert set(study_figures.PICTURES) == set(names.NAMES)


@pytest.mark.parametrize("study", names.NAMES)
def test_pictures(root: Path, study: str) -> None:
    picture = study_figures.draw(root, study)
    assert picture.startswith(PNG)
    study_figures.draw.cache_clear()
    assert study_figures.draw(root, study) == picture


def test_networks_that_went_beyond_all_bounds(tmp_path: Path) -> None:
    """The deepest from N(0, 1) at once, others never: the table says so, and it is drawn."""
    p = TINY.STARTS.model_copy(update={"depths": 6, "width": 32, "epochs": 2, "batch_size": 16})
    start(tmp_path, p)
    ends = {one.arm: one.metrics["epochs"] for one in results.arms(tmp_path, "initialisation")}
    assert (ends["unit_normal"], ends["xavier"]) == (0, 2)
    studies.write(tmp_path, "initialisation", tmp_path / "page.html", {})
    found = rows((tmp_path / "page.html").read_text())
    at = found["arm"].index("accuracy")
    assert found["unit_normal"][at] == "-" and found["xavier"][at] != "-"
    assert study_figures.draw(tmp_path, "initialisation").startswith(PNG)
