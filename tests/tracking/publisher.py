"""What stages/track.py does, for any checkout: python publisher.py ROOT [VARIANT...]."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from refashion.base import params
from refashion.tracking import context, publish, store
from refashion.tracking.results import Results


def die(*_: Any) -> None:
    """End like a process that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)


if "DIE_AT" in os.environ:
    setattr(MlflowClient, os.environ["DIE_AT"], die)
root = Path(sys.argv[1])
origin = context.gather(root)
with store.connect() as found:
    for variant in sys.argv[2:] or params.load(root / "params.yaml").variants:
        done = publish.publish(Results(root=root, variant=variant), origin, found)
        print(done.variant, done.outcome, done.run_id, sep="\t", flush=True)
