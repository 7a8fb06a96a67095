"""The ground on which faults are tried, and the table of what became of them."""

import json
import os
from pathlib import Path

import pytest

import injected
import small_pipeline
from campaign import Campaign, Ground, restore, state_of

TABLE = os.environ.get("FAULTS_TABLE", "")
"""The file to write the table of a whole campaign to (JSON); empty: none."""

ROWS = Path(f"{TABLE}.rows")
"""Lines of JSON that pytest's workers add while the campaign runs."""


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
def ground(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Give a small workspace whose pipeline has run once and is committed."""
    folder = tmp_path_factory.mktemp("faults")
    workspace = small_pipeline.start(
        root, folder / "project", DVC_SITE_CACHE_DIR=str(folder / "cache")
    )
    workspace.run("dvc", "repro")
    workspace.commit("Run the pipeline")
    restore(workspace.root, folder / "pristine")
    return Ground(workspace, folder / "pristine", state_of(workspace.root))


@pytest.fixture(scope="session")
def campaign() -> Campaign:
    """Count trials."""
    return Campaign(ROWS if TABLE else None)
