"""Publish runs to MLflow, each once: ``python stages track [VARIANT | STUDY]...``."""

import sys
from collections import Counter

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.tracking import context, publish, store


def main(*names: str) -> None:
    """Tell MLflow each run that it does not have yet, and the user where to look.

    Those of variants and of studies, by name; without a name, all of the pipeline.
    """
    workspace = Workspace.here()
    runs = [] if names else listing.of_pipeline(workspace)
    variants = {run.title: run for run in listing.variants(workspace)}
    for name in names:
        named = [variants[name]] if name in variants else listing.of_study(workspace, name)
        if not named:
            raise UserError(f"{name}: no variant and no study with runs here; run `dvc repro`")
        runs += named
    origin = context.gather(workspace.root)
    with store.connect(workspace) as connected:
        already_there, parts = 0, Counter[str]()
        for done in publish.publish_all(runs, origin, connected, workspace):
            if done.outcome == "already there":
                already_there += 1
            elif done.parent and done.outcome == "published":
                parts[done.parent] += 1
            else:
                print(f"{done.name}: {done.outcome}, run {done.run_id}", flush=True)
            if done.divergence_of:
                print(
                    f"warning: {done.name}: the same settings and data gave another result "
                    f"before, run {done.divergence_of}: compare the two runs in MLflow",
                    file=sys.stderr,
                )
        for parent, number in parts.items():
            print(f"{parent}: child runs published: {number}")
        if already_there:
            print(f"runs that were there already: {already_there}")
        place = connected.uri
        if connected.is_own:
            place = "make ui; to send them to a server: MLFLOW_TRACKING_URI=URL refashion publish"
        print(f"see them: {place}")
