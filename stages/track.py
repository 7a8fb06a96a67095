"""Publish every variant's result to MLflow, once: python stages track."""

import sys

from refashion import params, paths
from refashion.tracking import context, publish, store
from refashion.tracking.results import Results


def main() -> None:
    """Tell MLflow each result that it does not have yet, and the user where to look."""
    origin = context.gather(paths.ROOT)
    with store.connect() as found:
        for variant in params.load().variants:
            done = publish.publish(Results(root=paths.ROOT, variant=variant), origin, found)
            print(f"{variant}: {done.outcome}, run {done.run_id}", flush=True)
            if done.divergence_of:
                print(
                    f"warning: {variant}: the same settings and data gave another result before, "
                    f"run {done.divergence_of}: compare the two runs in MLflow",
                    file=sys.stderr,
                )
    print("see them: " + ("make ui" if found.uri == store.default() else found.uri))
