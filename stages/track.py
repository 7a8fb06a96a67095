"""Publish results to MLflow, each once: python stages track [STUDY]."""

import sys

from refashion.base import params, paths
from refashion.tracking import context, publish, results, store


def main(study: str = "") -> None:
    """Tell MLflow each result that it does not have yet, and the user where to look.

    Those of all variants and of the studies of the pipeline; or those of one study.
    """
    origin = context.gather(paths.ROOT)
    found = (
        results.arms(paths.ROOT, study)
        if study
        else results.everything(paths.ROOT, params.load().variants)
    )
    with store.connect() as there:
        for done in publish.publish_all(found, origin, there):
            print(f"{done.variant}: {done.outcome}, run {done.run_id}", flush=True)
            if done.divergence_of:
                print(
                    f"warning: {done.variant}: the same settings and data gave another result "
                    f"before, run {done.divergence_of}: compare the two runs in MLflow",
                    file=sys.stderr,
                )
    print("see them: " + ("make ui" if there.uri == store.default() else there.uri))
