"""The ground on which faults are tried, and the table of what became of them."""

import json
import os
from pathlib import Path

import pytest
from filelock import FileLock

import injected
import small_pipeline
from campaign import Campaign, Ground, restore, state_of
from small_pipeline import Workspace

TABLE = os.environ.get("FAULTS_TABLE", "")
"""The file to write the table of a whole campaign to (JSON); empty: none."""

ROWS = Path(f"{TABLE}.rows")
"""Lines of JSON that pytest's workers add while the campaign runs."""


LONGEST = "test_settings"
"""The file of the longest test: if a worker came to it late, the other one would wait."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the second worker of a campaign begin with what needs no ground: the first makes it."""
    if TABLE:
        grounded = [item for item in items if "ground" in getattr(item, "fixturenames", ())]
        items.sort(key=lambda item: (item in grounded[1:], item.path.stem != LONGEST))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table, where all workers' rows are there."""
    if TABLE and not hasattr(session.config, "workerinput") and ROWS.exists():
        rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
        rows.sort(key=lambda row: row["fault"])
        Path(TABLE).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        ROWS.unlink()


@pytest.fixture(scope="session")
def strace() -> None:
    """Skip tests where no call can be made to fail."""
    if why := injected.unavailable():
        pytest.skip(why)


@pytest.fixture(scope="session")
def ground(root: Path, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Ground:
    """Give a small workspace whose pipeline has run once and is committed.

    It runs for the first of pytest's workers; others copy that, and publish its runs themselves.
    """
    folder = tmp_path_factory.mktemp("faults")
    environment = {"DVC_SITE_CACHE_DIR": str(folder / "cache")}
    shared = folder if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    first, pristine = shared / "first", folder / "pristine"
    with FileLock(shared / "first.lock"):
        if first.is_symlink():
            environment |= small_pipeline.ENVIRONMENT
            workspace = Workspace(folder / "project", small_pipeline.MODELS, environment)
            copied = Ground(workspace, first, state_of(first))
            copied.put_back("mlflow.db", "mlflow-artifacts")  # where they lie stands in them
            workspace.run("refashion", "publish")
        else:
            workspace = small_pipeline.start(root, folder / "project", **environment)
            workspace.run("dvc", "repro")
            workspace.commit("Run the pipeline")
            first.symlink_to(pristine)
        restore(workspace.root, pristine)
    return Ground(workspace, pristine, state_of(workspace.root))


@pytest.fixture(scope="session")
def campaign() -> Campaign:
    """Count trials."""
    return Campaign(ROWS if TABLE else None)
