"""What every test shares: a clean environment and examples that are the same every time."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile("refashion", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("refashion")

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
]
"""Of a browser."""


def pytest_configure() -> None:
    """Keep the caller's experiment and tracking server out of the tests, before any import.

    One thread for each process: with two processes, threads would wait for one another. Ctrl-C is
    heard, in the processes of tests too: shells make what they start in the background deaf to it.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in list(os.environ):
        if name.startswith(("DVC_", "MLFLOW_")):
            del os.environ[name]
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process have all tests of a file, which share fixtures; or of a folder that does.

    The pipeline's take longest, and begin. Of a campaign of faults each process takes the work
    that is next.
    """
    for item in items:
        folder, fixtures = item.path.parent.name, getattr(item, "fixturenames", ())
        shared = folder == "reproduction" or (folder == "pipeline" and "workspace" in fixtures)
        group = folder if shared else str(item.path)
        if item.get_closest_marker("faults"):
            group = folder if item.get_closest_marker("ci") else work(item)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.path.parent.name != "pipeline")


def work(item: pytest.Item) -> str:
    """Name what faults are tried on, a stage or a command: how it runs is learnt once."""
    call = getattr(item, "callspec", None)
    return f"{item.path}: {call.params['name']}" if call and "name" in call.params else item.nodeid


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the checkout under test."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser that asks nobody but for what its pages ask."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium: apt-get install chromium, then run again")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database with MLflow's tables, which take seconds to make; to be copied."""
    from refashion.base.workspace import Workspace
    from refashion.tracking import store

    workspace = Workspace(tmp_path_factory.mktemp("empty"))
    with store.connect(workspace):
        return store.default_database(workspace)
