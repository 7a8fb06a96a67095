"""Workspaces with results, and a database that holds them as runs."""

import pytest

from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.runs import listing
from refashion.tracking import publish, store
from refashion.tracking.context import Context
from synthetic import write_evaluation, write_variant, write_workspace

PUBLISHED = ("main mlp", "main softmax", "seed 1 mlp", "seed 2 mlp", "mnist softmax")
WRONG = {1: 12, 2: 18}
"""Mistakes of the mlp with seeds 1 and 2; with seed 0 it makes 9, of 60 images."""


@pytest.fixture(scope="session")
def workspaces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """Give workspaces by what sets them apart, to be read and not changed."""
    data = Workspace.here().params().data.model_dump()
    workspaces = {}
    for name, changes in (
        ("main", {}),
        ("seed 1", {"seed": 1}),
        ("seed 2", {"seed": 2}),
        ("lr 0.2", {"lr": 0.2}),
        ("diverged", {}),
        ("mnist", {"data": {**data, "dataset": "mnist"}}),
    ):
        root = tmp_path_factory.mktemp("workspace")
        workspace = workspaces[name] = write_workspace(root, **changes)
        if "seed" in changes:
            write_evaluation(workspace, "mlp", wrong=WRONG[changes["seed"]])
    write_variant(workspaces["diverged"], "mlp", outcome="another")
    return workspaces


@pytest.fixture(scope="session")
def ids(workspaces: dict[str, Workspace]) -> dict[str, str]:
    """Give MLflow's ids of runs in the main workspace's database, by workspace and variant."""
    ids = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "draw", lambda run, workspace: {})
        with store.connect(workspaces["main"]) as connected:
            for name in PUBLISHED:
                where, variant = name.rsplit(" ", 1)
                run = listing.variant(workspaces[where], variant)
                dvc = "puffy-hake" if where.startswith("seed") else None
                context = Context(
                    commit=None, diff=b"", experiment=dvc, baseline=None, environment=""
                )
                (done,) = publish.publish_all([run], context, connected, workspaces[where])
                ids[name] = done.run_id
    return ids


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pages be written in no time, with their pictures' names and no picture."""
    monkeypatch.setattr("refashion.reporting.page.png", lambda figure: b"PNG")


@pytest.fixture(scope="session")
def main(workspaces: dict[str, Workspace]) -> Workspace:
    """Give the workspace that has the database."""
    return workspaces["main"]
