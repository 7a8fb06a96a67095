"""Pages need nothing but themselves, show what they say, and can be read on a phone."""

import os
import re
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data.catalogue import DATASETS
from refashion.pictures.figures import blank
from refashion.reporting import page, side_by_side
from refashion.runs import listing
from refashion.studies import k_fold, sweep
from synthetic import write_evaluation, write_run, write_sweep, write_workspace

PICTURES = [
    *("learning curves", "calibration", "confusion matrix"),
    *("most confident mistakes", "first test images", "first-layer weights"),
]
MLP = {"mlp": {"hidden": [16], "lr": 0.1}}


def write(path: Path, workspace: Workspace, *variants: str, test: Path | None = None) -> str:
    runs = [listing.variant(workspace, variant) for variant in variants]
    page.write(path, page.of(side_by_side.of(runs), test or workspace.test), "Written today.")
    return path.read_text()


@pytest.fixture(scope="module")
def written(main: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the page of two variants."""
    path = tmp_path_factory.mktemp("page") / "new folder" / "report.html"
    write(path, main, "mlp", "softmax")
    return path


def alts(text: str) -> list[str]:
    return re.findall(r'<img src="data:image/png;base64,[\w+/=]+" alt="([^"]+)">', text)


def of_run(text: str, name: str) -> list[str]:
    """The pictures of one run, by their words in `PICTURES`."""
    titles = [alt for alt in alts(text) if alt.startswith(f"{name} on ")]
    return [words for title in titles for words in PICTURES if words in title]


def test_page_holds_every_table_and_picture_and_nothing_from_elsewhere(written: Path) -> None:
    text = written.read_text()
    of_both = [f"{metric} by hidden" for metric in ("test accuracy", "cross-entropy / nats")]
    assert alts(text)[:3] == [*of_both, "learning curves"]
    assert of_run(text, "mlp") == of_run(text, "softmax") == PICTURES
    titles = re.findall("<h2>(.+)</h2>", text)
    assert titles[:3] == ["Settings that differ", "Test accuracy", "Metrics"]
    assert titles[4:] == ["Settings of all runs", "Ids and digests", "mlp", "softmax"]
    assert "mlp vs softmax" in text and "Written today." in text
    assert "{{" not in text and "{%" not in text
    assert "<script" not in text and "http" not in text and "@import" not in text
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) == {"data:", "#sect"}


def test_page_is_canonical_but_for_its_stamp(written: Path, main: Workspace) -> None:
    again = write(written.with_name("again.html"), main, "softmax", "mlp")
    assert again == written.read_text()


def test_stamp_names_the_commit_and_uncommitted_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.check_output(command, cwd=tmp_path, text=True).strip()

    workspace, date = Workspace(tmp_path), r"Written on \d{4}-\d\d-\d\d at \d\d:\d\d UTC"
    assert re.fullmatch(rf"{date}\.", page.stamp(workspace))
    git("init")
    git("commit", "--allow-empty", "-m", "a")
    commit = git("rev-parse", "HEAD")[:12]
    assert re.fullmatch(rf"{date} from commit {commit}\.", page.stamp(workspace))
    (tmp_path / "new").touch()
    assert page.stamp(workspace).endswith(f" from commit {commit} with uncommitted changes.")


def test_hostile_text_is_escaped(main: Workspace, tmp_path: Path) -> None:
    """Names of runs, settings and notes come from files that anybody may have written."""
    hostile = "<script>\"'&{{ 7 * 7 }}"
    run, settings = listing.variant(main, "mlp"), {hostile: {hostile: hostile}}
    names = {"runs": {hostile: run}, "ids": {hostile: hostile}, "notes": [hostile]}
    comparison = replace(side_by_side.of([run]), settings=settings, **names)
    path = tmp_path / "page.html"
    shown = page.of(comparison, tmp_path, title=hostile, figures=[blank(2, 1, hostile)])
    page.write(path, shown, hostile, {f"{hostile}.html": hostile})
    text = path.read_text()
    assert "<script" not in text and "49" not in re.sub('base64,[^"]*|[0-9a-f]{64}', "", text)
    escaped = "&lt;script&gt;&#34;&#39;&amp;{{ 7 * 7 }}"
    assert hostile not in text and text.count(escaped) > 12
    assert f'<th scope="col">{escaped}</th>' in text and f"<td>{escaped}</td>" in text


def test_pictures_that_are_missing_are_told(main: Workspace, tmp_path: Path) -> None:
    text = write(tmp_path / "page.html", main, "mlp", test=tmp_path)
    assert of_run(text, "mlp") == [*PICTURES[:3], PICTURES[5]]
    assert "Its predictions are not shown in pictures: the test images of this" in text
    workspace = write_workspace(tmp_path, variants=MLP)
    write_evaluation(workspace, "mlp", wrong=0)
    text = write(tmp_path / "page.html", workspace, "mlp")
    assert of_run(text, "mlp") == [*PICTURES[:3], *PICTURES[4:]]
    assert "It makes no mistake on the test set." in text


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.usefixtures("undrawn")
def test_page_of_many_runs_shows_them_all_together(tmp_path: Path, more: int) -> None:
    runs, row = side_by_side.MANY + more, {"train_loss": 0.5, "train_accuracy": 0.5}
    for i in range(runs):
        write_run(Workspace(tmp_path), f"sweep/trial_{i}", [row], row, params={"lr": 0.1 + i})
    comparison = side_by_side.of(listing.of_study(Workspace(tmp_path), "sweep"))
    page.write(tmp_path / "page.html", page.of(comparison, tmp_path), "")
    text = (tmp_path / "page.html").read_text()
    assert alts(text)[:3] == ["train_accuracy by lr", "train_loss by lr", "learning curves"]
    assert len(alts(text)) == 3 + runs * (not more)
    assert (f"{runs} runs: tests" in text) == bool(more)


@pytest.mark.parametrize("name", ["", ".", "/", "..", "a\nb.html", "\udcff.html"])
def test_what_is_no_name_of_a_page_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reason = r"file that can be written" if name == ".." else r"no name for a file"  # a folder
    with pytest.raises(UserError, match=reason):
        page.write(Path(name), page.Page(title="", notes=[], figures=[]), "")
    with pytest.raises(UserError, match=reason):
        next(page.write_all(write_workspace(tmp_path, variants=MLP), Path(name)))


def test_a_page_is_written_through_a_link_and_not_over_a_pipe(tmp_path: Path) -> None:
    shown = page.Page(title="", notes=[], figures=[])
    link, target, pipe = (tmp_path / name for name in ("link.html", "target.html", "pipe.html"))
    link.symlink_to(target)
    page.write(link, shown, "")
    assert link.is_symlink() and "<html" in target.read_text()
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="name a file that can be written"):
        page.write(pipe, shown, "")
    assert pipe.is_fifo()


def test_a_workspace_without_variants_has_no_page(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("variants: {}\n")
    with pytest.raises(UserError, match=r"^params\.yaml: has no variants"):
        next(page.write_all(Workspace(tmp_path), tmp_path / "report.html"))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_page_in_a_browser(browser: Browser, written: Path, scheme: str, width: int) -> None:
    shown = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text))
    shown.on("pageerror", lambda error: complaints.append(str(error)))
    urls: list[str] = []
    shown.on("request", lambda request: urls.append(request.url))
    shown.goto(written.as_uri())
    widths = shown.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 15 and min(widths) > 300
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    red, *_ = re.findall(r"\d+", shown.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (int(red) < 50) == (scheme == "dark")
    assert complaints == []
    assert [url for url in urls if not url.startswith("data:")] == [written.as_uri()]
    shown.close()


HOSTILE = [
    "<img src=x onerror='window.ran=1'>",
    "'\"><img src=x onerror='window.ran=1'>",
    '" autofocus onfocus="window.ran=1" tabindex=1 x="',
    "<svg onload=window.ran=1>",
    "javascript:window.ran=1;x",
    "{{ page.__class__ }}{% if 1 %}#?&%20",
]
"""Names without a slash, so of folders too."""


@pytest.mark.usefixtures("undrawn")
def test_hostile_names_run_no_script(browser: Browser, tmp_path: Path) -> None:
    """Of sweeps, classes, settings, metrics, runs, ids and files."""
    workspace = write_workspace(tmp_path / HOSTILE[0], variants=MLP)
    for i, text in enumerate(HOSTILE):
        write_sweep(workspace, text, 0.5, 0.75)
        row = {text: 0.5, "train_loss": 0.5}
        write_run(workspace, f"hostile/{i}", [row], row, params={text: text, "lr": i})
    for name in ("predictions.csv", "per_class.csv"):
        file = workspace.evaluation / "mlp" / name
        text = file.read_text()
        for i, label in enumerate(DATASETS["fashion_mnist"].classes):
            text = text.replace(label, '"{}"'.format(HOSTILE[i % 6].replace('"', '""') + str(i)))
        file.write_text(text)
    pages = list(page.write_all(workspace, tmp_path / "javascript:window.ran=1.html"))
    runs = listing.of_study(workspace, "hostile")
    comparison = side_by_side.of(runs, dict(zip(runs, HOSTILE, strict=True)))
    comparison = replace(comparison, runs=dict(zip(HOSTILE, runs, strict=True)))
    script = "<script>window.ran=1</script>"
    shown = page.of(comparison, tmp_path, title=script, notes=[script, *HOSTILE])
    names = {file.name: script for file in pages}
    page.write(tmp_path / "page.html", shown, f"</p>{script}", names)
    opened, urls = browser.new_page(), []
    opened.on("request", lambda request: urls.append(request.url))
    for file in (*pages, tmp_path / "page.html"):
        urls.clear()
        opened.goto(file.as_uri())
        links, scripts, ran = opened.evaluate(
            """[[...document.querySelectorAll("a")].map(a => a.href),
                document.querySelectorAll("script, iframe, svg, [onerror], [onfocus]").length,
                typeof window.ran]"""
        )
        assert {*map(Path.as_uri, pages)} == {url for url in links if "#section" not in url}
        assert (scripts, ran) == (0, "undefined")
        assert [url for url in urls if not url.startswith("data:")] == [opened.url]
    opened.close()


# --- all pages of a workspace -------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write the pages of a workspace with one variant, one study in two folds, and a sweep."""
    workspace = write_workspace(tmp_path_factory.mktemp("workspace"), variants=MLP)
    row = dict.fromkeys(("train_loss", "train_accuracy", "validation_accuracy"), 0.6)
    write_run(workspace, "k_fold/mlp", [row], {**row, "validation_accuracy_std": 0.1, "folds": 2})
    for fold in ("fold_1", "fold_2"):
        write_run(workspace, f"k_fold/mlp.{fold}", [row], row, parent="k_fold/mlp")
    write_sweep(workspace, "rates", 0.5, 0.75, None)
    return list(page.write_all(workspace, workspace.root / "new" / "folder" / "report.html"))


def links(file: Path) -> list[str]:
    """Files that a page links to."""
    return re.findall(r'<a href="([^"#]+)"', file.read_text())


def test_every_link_leads_to_a_page(pages: list[Path]) -> None:
    names = [file.name for file in pages]
    studies = [f"report-{name}.html" for name in ("k_fold", "rates", "explained")]
    assert names == ["report.html", *studies]
    assert set(pages[0].parent.iterdir()) == set(pages)
    for file in pages:
        text = file.read_text()
        assert links(file) == names
        assert re.findall(r'<a href="([^"]+)" aria-current="page"', text) == [file.name]
        assert text.count("<h1>") == text.count(">Written on 2") == 1 and "<img " in text
    assert "mlp: the images that it takes for each class" in pages[-1].read_text()


def test_page_of_a_study(pages: list[Path]) -> None:
    """Folds are in the picture; tables and sections are of what sums them up."""
    text = pages[1].read_text()
    assert f"<title>{k_fold.TITLE}</title>" in text
    assert all(escape(note) in text for note in k_fold.NOTES)
    assert "<td>0.6000 ± 0.1</td>" in text and "fold_1" not in text
    assert alts(text) == ["2-fold validation", "k_fold/mlp on synthetic: learning curves"]


def test_page_of_a_sweep(pages: list[Path]) -> None:
    """The best first, and what diverged last; the test set was read for the best alone."""
    text = pages[2].read_text()
    assert "<title>Sweep rates</title>" in text
    assert all(escape(note) in text for note in sweep.NOTES)
    assert "The best is trial 2 (lr=0.2): validation accuracy 0.7500" in text
    assert "test accuracy 0.7500. Diverged: 1." in text
    titles = re.findall("<h2>(.+)</h2>", text)
    assert titles[:2] == ["All 3 runs, by validation accuracy", "Metrics"]
    names = re.findall(r'<th scope="row">(mlp.trial_\d)</th>', text)
    assert names == ["mlp.trial_2", "mlp.trial_1", "mlp.trial_3"]
    ways = [f"validation {measure} by lr" for measure in ("accuracy", "loss / nats")]
    assert alts(text) == [*ways, "learning curves", "rates/mlp on synthetic: learning curves"]


@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The explanation has no page, without a model; the variants need all their results."""
    workspace = write_workspace(tmp_path, variants=MLP)
    (workspace.models / "mlp" / "weights.safetensors").unlink()
    (file,) = page.write_all(workspace, tmp_path / "page.htm")
    assert [file.name] == links(file) == ["page.htm"]
    told = capsys.readouterr().err
    assert told.startswith("softmax and cross-entropy are not explained: ")
    assert told.count("\n") == 1
    (workspace.evaluation / "mlp" / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"^mlp: its metrics\.json is missing; run `dvc repro`"):
        next(page.write_all(workspace, tmp_path / "page.html"))
