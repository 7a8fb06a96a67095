"""The page needs nothing but itself, shows what it says, and can be read on a phone."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser, sync_playwright

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.reporting import page, side_by_side
from refashion.tracking.results import Results

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
PICTURES = ["learning curves", "confusion matrix", "calibration", "most confident mistakes"]


def write(root: Path, path: Path, *variants: str) -> str:
    page.write(side_by_side.of([Results(root=root, variant=v) for v in variants]), path)
    return path.read_text()


@pytest.fixture(scope="module")
def written(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of two variants."""
    path = tmp_path_factory.mktemp("page") / "new folder" / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "TEST", roots["main"] / "data/prepared/test")
        write(roots["main"], path, "mlp", "softmax")
    return path


def alts(text: str) -> list[str]:
    return re.findall(r'<img src="data:image/png;base64,[\w+/=]+" alt="([^"]+)">', text)


def test_page_holds_every_table_and_picture(written: Path) -> None:
    text = written.read_text()
    assert alts(text) == [
        f"{v} on fashion_mnist: {p}" for v in ("mlp", "softmax") for p in PICTURES
    ]
    for title in ("Settings that differ", "Test accuracy", "Which is better"):
        assert f"<h2>{title}" in text
    assert "mlp vs softmax" in text
    assert "$" not in text


def test_page_needs_nothing_from_elsewhere(written: Path) -> None:
    text = written.read_text()
    assert "<script" not in text and "http" not in text and "@import" not in text
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) == {"data:", "#run-"}


@pytest.mark.usefixtures("images")
def test_page_is_canonical(written: Path, roots: dict[str, Path]) -> None:
    again = write(roots["main"], written.with_name("again.html"), "softmax", "mlp")
    assert again == written.read_text()


def test_images_of_another_test_set_are_left_out(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (roots["main"] / "data/prepared/train", tmp_path):  # another set, and none
        monkeypatch.setattr(paths, "TEST", folder)
        text = write(roots["main"], tmp_path / "page.html", "mlp")
        assert alts(text) == [f"mlp on fashion_mnist: {p}" for p in PICTURES[:3]]
        assert "Its most confident mistakes are not shown: the test images of this" in text


@pytest.mark.usefixtures("images")
def test_no_mistake_is_told(made_up: SimpleNamespace, tmp_path: Path) -> None:
    made_up.write_results(tmp_path)
    made_up.write_evaluation(tmp_path, "mlp", wrong=0)
    text = write(tmp_path, tmp_path / "page.html", "mlp")
    assert len(alts(text)) == 3
    assert "It makes no mistake on the test set." in text


def test_page_that_cannot_be_written(roots: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"name a file that can be written"):
        write(roots["main"], tmp_path, "mlp")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium, then run again")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_page_in_a_browser(browser: Browser, written: Path, scheme: str, width: int) -> None:
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    asked: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(written.as_uri())
    widths = shown.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 8 and min(widths) > 300
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    red, *_ = re.findall(r"\d+", shown.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (int(red) < 50) == (scheme == "dark")
    assert complaints == []
    assert [url for url in asked if not url.startswith("data:")] == [written.as_uri()]
    shown.close()
