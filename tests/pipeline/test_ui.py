"""What the user sees: MLflow's pages in a real browser, with the runs of all variants."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import Browser, Page, expect

from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.tracking import context, publish, store, view
from servers import serving
from synthetic import write_workspace

TRAINING = "workflowType=machine_learning"
"""Makes MLflow's pages show runs and curves, not prompts and traces."""

PATIENCE = 60_000
"""Milliseconds that a page may take on a busy machine."""

pytestmark = pytest.mark.ci
expect.set_options(timeout=PATIENCE)
VARIANTS = ("softmax", "mlp", "dropout")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a database with synthetic results of the three variants.

    The variable REFASHION_UI_DATABASE names another one, such as the real pipeline's.
    """
    if given := os.environ.get("REFASHION_UI_DATABASE"):
        return Path(given).resolve()
    workspace = write_workspace(tmp_path_factory.mktemp("ui"))
    origin = context.gather(workspace.root)
    with store.connect(workspace) as connected:
        list(publish.publish_all(listing.variants(workspace), origin, connected, workspace))
    return workspace.root / "mlflow.db"


@pytest.fixture(scope="module")
def address(database: Path) -> Iterator[str]:
    """Serve the database as `make ui` does."""
    with serving(f"sqlite:///{database}", database.with_suffix(".artifacts")) as address:
        yield address


@pytest.fixture(scope="module")
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Give a page of a browser that fails the test if it asks anybody but the server."""
    page = browser.new_page(viewport={"width": 1600, "height": 2000})
    page.set_default_timeout(PATIENCE)
    strangers: list[str] = []
    page.on("request", lambda r: strangers.append(r.url) if outside(r.url, address) else None)
    yield page
    page.close()
    assert strangers == []


def outside(url: str, address: str) -> bool:
    return not url.startswith((address, "data:", "blob:", "chrome"))


def screenshot(page: Page, name: str) -> None:
    page.screenshot(path=Workspace.here().reports / "figures" / f"{name}.png")


def runs(database: Path) -> tuple[str, dict[str, Run]]:
    """Experiment of Fashion-MNIST, and a run of each variant."""
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("fashion_mnist").experiment_id
    return experiment, {run.data.tags["name"]: run for run in client.search_runs([experiment])}


def test_the_address_that_refashion_ui_prints_has_our_columns(
    page: Page, address: str, database: Path
) -> None:
    experiment, _ = runs(database)
    page.goto(view.address(address, experiment))
    for key in ("tags.`name`", "params.`lr`", "metrics.`test_accuracy`"):
        expect(page.locator(f'.ag-header-cell[col-id="{key}"]')).to_be_visible()
    for variant in VARIANTS:
        expect(page.get_by_role("link", name=variant, exact=True).first).to_be_visible()
    screenshot(page, "mlflow-runs")


def test_two_runs_are_compared(page: Page, address: str, database: Path) -> None:
    experiment, by_name = runs(database)
    pair = by_name["dropout"], by_name["mlp"]
    chosen = json.dumps([run.info.run_id for run in pair])
    page.goto(f"{address}/#/compare-runs?runs={chosen}&experiments=[%22{experiment}%22]&{TRAINING}")
    page.get_by_role("switch").first.click()  # of the parameters, those that differ
    lr = page.get_by_role("row").filter(has=page.get_by_text("lr", exact=True))
    accuracy = page.get_by_text("test_accuracy", exact=True).last
    expect(accuracy).to_be_visible()
    for run in pair:
        expect(lr).to_contain_text(run.data.params["lr"])
        shown = f"{run.data.metrics['test_accuracy']:.3g}"
        expect(page.get_by_text(shown, exact=True).first).to_be_attached()
    expect(page.locator(".js-plotly-plot").first).to_be_visible()
    screenshot(page, "mlflow-compare")


def test_pictures_are_shown(page: Page, address: str, database: Path) -> None:
    experiment, by_name = runs(database)
    mlp = by_name["mlp"].info.run_id
    artifact = "artifacts/figures/learning_curves.png"
    page.goto(f"{address}/#/experiments/{experiment}/runs/{mlp}/{artifact}?{TRAINING}")
    picture = page.locator("img[src^='blob:'], img[src*='get-artifact']").first
    expect(picture).to_be_visible()
    screenshot(page, "mlflow-artifacts")
