"""What a process does that publishes beside others."""

import os
import signal
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.runs import listing
from refashion.tracking import context, publish, store


def die(*_: Any) -> None:
    """End like a process that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


def tell(root: Path, uri: str, experiment: str = "", deadly: str = "") -> tuple[str, str]:
    """Publish the run of softmax, without pictures, or die in a method of MLflow's client."""
    # Eight processes on few cores: patience is not what is tested here.
    os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"}
    if experiment:
        os.environ["DVC_EXP_NAME"] = experiment
    if deadly:
        setattr(MlflowClient, deadly, die)
    of_run.draw = lambda run, workspace: {}
    workspace = Workspace(root)
    run = listing.variant(workspace, "softmax")
    with store.connect(workspace) as connected:
        done = publish.publish(run, context.gather(root), connected, workspace)
    return done.outcome, done.run_id
