"""The real pipeline, in a workspace of its own: small images, small models, every stage."""

from pathlib import Path

import pytest

from small_pipeline import Workspace, start

AUDIT = Path(__file__).parent / "audit"


@pytest.fixture(scope="session")
def workspace(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give a workspace on `digits` whose pipeline has run once and is committed."""
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    log = folder.parent / "audit"
    log.mkdir()
    found = start(root, folder, PYTHONPATH=str(AUDIT), AUDIT_ROOT=str(folder), AUDIT_LOG=str(log))
    found.run("dvc", "repro")
    found.run("dvc", "repro", "stages/k_fold/dvc.yaml", "stages/sweep/dvc.yaml")
    found.commit("Run the pipeline")
    del found.environment["PYTHONPATH"]  # only the first run is watched
    return found
