"""The ``refashion`` command: a thin skin over the package, one function a command.

Exit codes: 0 what was asked holds, 1 it does not, 2 the user's mistake.
"""

import dataclasses
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from refashion.base.errors import UserError

if TYPE_CHECKING:
    from refashion.reproduction.diverge import Side
    from refashion.tracking.store import Store

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Group(click.Group):
    """Commands whose mistakes are told in one line."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command; turn a user's mistake into one line and exit code 2."""
        try:
            return super().invoke(context)
        except UserError as error:
            if context.params["debug"]:
                raise
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)


variant_option = click.option("--variant", help="This variant alone, or STUDY/ARM.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def show_json(found: Any) -> None:
    """Print JSON with sorted keys."""
    print(json.dumps(found, indent=2, sort_keys=True))


@click.group(cls=Group, context_settings=CONTEXT)
@click.option("--debug", is_flag=True, help="Show where in the code an error comes from.")
@click.version_option(package_name="refashion")
def main(debug: bool) -> None:
    """Run any training again, compare it, and say whether it came out the same.

    RUN is the id of an MLflow run (or its beginning) or the name of a DVC experiment. Runs are
    looked for in MLFLOW_TRACKING_URI, by default in this checkout's mlflow.db.

    Completion in bash (zsh and fish likewise): eval "$(_REFASHION_COMPLETE=bash_source refashion)"

    Example: refashion reproduce 3f2a9c
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextmanager
def reading_place() -> "Iterator[tuple[Store | None, Path]]":
    """Give the store, if there is one, and a folder to read runs into."""
    from refashion.tracking import store

    with tempfile.TemporaryDirectory(prefix="refashion-") as name:
        if os.environ.get("MLFLOW_TRACKING_URI") or store.default_database().exists():
            with store.connect(reading=True) as found:
                yield found, Path(name)
        else:
            yield None, Path(name)


@main.command()
@click.argument("run")
@variant_option
@as_json
def reproduce(run: str, variant: str | None, as_json: bool) -> None:
    """Run a training again and say whether it came out the same.

    RUN may also be a git revision. Its commit, uncommitted changes and settings are brought back
    in a temporary folder, its stages run there, and every digest is compared. The verdict is
    written on the run in MLflow, as tags and as an attestation.

    \b
    Example: refashion reproduce 3f2a9c
             refashion reproduce puffy-hake --variant mlp
             refashion reproduce main
    """
    from refashion.reproduction import reproduce as reproduction

    found = []
    with reading_place() as (store, folder):
        for claim in reproduction.claims(run, folder, store, variant):
            for attestation in reproduction.reproduce(claim):
                found.append(attestation)
                if store:
                    reproduction.publish(attestation, store)
    if as_json:
        show_json([attestation.as_dict() for attestation in found])
    else:
        for attestation in found:
            _tell(attestation.as_dict())
    sys.exit(not all(attestation.verdict.holds for attestation in found))


def _tell(attestation: dict[str, Any]) -> None:
    """Print an attestation for people."""
    verdict = attestation["verdict"]
    source = f"run {attestation['run_id']}" if attestation["run_id"] else "commit"
    print(f"{verdict['variant']} ({source}, {attestation['commit'][:12]}): {verdict['line']}")
    for name, tensor in verdict["tensors"].items():
        share = f"{tensor['distance']:.2g} of its norm"
        print(f"  tensor {name}: differs by up to {tensor['largest']:.2g}, {share}")
    for name, difference in verdict["metrics"].items():
        print(f"  metric {name}: differs by {difference:.2g}")
    if verdict["note"]:
        print(f"  {verdict['note']}")
    if verdict["outcome"] != "identical":
        for name, (then, now) in attestation["environment"].items():
            print(f"  {name}: {then} then, {now} now")


@main.command()
@click.argument("revision", default="HEAD")
@as_json
def verify(revision: str, as_json: bool) -> None:
    """Run a commit's whole pipeline again and hold every output against its dvc.lock.

    \b
    Example: refashion verify
             refashion verify v1.0
    """
    from rich.console import Console
    from rich.table import Table

    from refashion.reproduction import verify as verification
    from refashion.reproduction import worktree

    commit = worktree.require(revision)
    outputs = verification.verify(commit)
    if as_json:
        rows = [
            {"path": o.path, "promised": o.promised, "found": o.found, "identical": o.identical}
            for o in outputs
        ]
        show_json({"commit": commit, "outputs": rows})
    else:
        table = Table("output", "", "promised", "found", title=f"commit {commit[:12]}")
        for o in outputs:
            same = "identical" if o.identical else "[bold red]different[/]"
            table.add_row(o.path, same, (o.promised or "-")[:12], (o.found or "-")[:12])
        Console().print(table)
    sys.exit(not (outputs and all(o.identical for o in outputs)))


@main.command()
@click.argument("a")
@click.argument("b")
@variant_option
@as_json
def diverge(a: str, b: str, variant: str | None, as_json: bool) -> None:
    """Say in which epoch two runs part, and what could have parted them.

    A and B are runs, experiments or git revisions, or record.json files.

    \b
    Example: refashion diverge 3f2a9c 77b01e
             refashion diverge main puffy-hake --variant mlp
    """
    from refashion.reproduction import diverge as divergence

    with reading_place() as (store, folder):
        sides: list[Side] = [
            divergence.find(text, folder / str(i), store, variant) for i, text in enumerate((a, b))
        ]
        found = divergence.diverge(*sides)
    if as_json:
        show_json(found)
    else:
        if found["epoch"]:
            print(f"part in epoch {found['epoch']}")
        else:
            print("same history" if found["same_outputs"] else "same history, other weights")
        for part in ("params", "data", "outputs", "environment"):
            for name, (one, other) in found[part].items():
                print(f"  {part} {name}: {one} | {other}")
        unknown = found["code"] is None
        print(f"  code: {'unknown' if unknown else ', '.join(found['code']) or 'the same'}")
    sys.exit(not found["same_outputs"])


@main.command()
@click.option("--baseline", metavar="REV", help="Refuse variants significantly worse than there.")
@as_json
def gate(baseline: str | None, as_json: bool) -> None:
    """Hold the workspace's results to what params.yaml asks, and to their promise.

    Fresh (dvc status), reproducible under one thread and under the lowest instruction set, good
    enough (gates: in params.yaml) and, with a baseline, not significantly worse (McNemar). The
    summary also goes to the file that GITHUB_STEP_SUMMARY names.

    \b
    Example: refashion gate
             refashion gate --baseline origin/main
    """
    from refashion.reproduction import gate as gates

    checks = []
    for check in gates.gate(baseline):
        checks.append(check)
        print(
            f"{'holds' if check.holds else 'FAILS'}  {check.name}: {check.detail}", file=sys.stderr
        )
    if as_json:
        show_json([{"name": c.name, "holds": c.holds, "detail": c.detail} for c in checks])
    else:
        print(gates.summary(checks))
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(gates.summary(checks))
    sys.exit(not all(check.holds for check in checks))


@main.command()
@as_json
def publish(as_json: bool) -> None:
    """Publish the workspace's results and those of all DVC experiments to MLflow, each once.

    Builds an emptied database anew; where nothing is missing, nothing changes.

    \b
    Example: refashion publish
    """
    from refashion.reproduction import republish
    from refashion.tracking import store

    rows = []
    with store.connect() as found:
        for source, done in republish.republish(found):
            if isinstance(done, republish.Missing):
                rows.append({"source": source, "outcome": "missing", "detail": done.reason})
            else:
                detail = f"{done.variant}, run {done.run_id}"
                rows.append({"source": source, "outcome": done.outcome, "detail": detail})
            if not as_json:
                print("{source}: {outcome}: {detail}".format(**rows[-1]), flush=True)
    if as_json:
        show_json(rows)
    sys.exit(any(row["outcome"] == "missing" for row in rows))


@main.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--experiment", metavar="NAME", help="All runs of an experiment, MLflow's or DVC's.")
@click.option("--tag", metavar="KEY=VALUE", help="All runs with this tag.")
@as_json
@click.option("--markdown", is_flag=True, help="Print tables for GitHub.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with pictures there.")
def compare(
    runs: tuple[str, ...],
    experiment: str | None,
    tag: str | None,
    as_json: bool,
    markdown: bool,
    html: Path | None,
) -> None:
    """Set runs side by side: settings, metrics, means over seeds and tests of significance.

    \b
    Example: refashion compare 3f2a9c 77b01e
             refashion compare --experiment puffy-hake --markdown
             refashion compare --tag variant=mlp --html build/mlp.html
    """
    if not (runs or experiment or tag):
        raise click.UsageError("name at least one RUN, an --experiment or a --tag")
    if as_json + markdown + (html is not None) > 1:
        raise click.UsageError("choose one of --json, --markdown and --html")
    if tag and "=" not in tag:
        raise click.BadParameter(f"{tag!r} is not KEY=VALUE", param_hint="--tag")

    from refashion.reporting import choice, page, side_by_side, tables
    from refashion.tracking import runs as tracked
    from refashion.tracking import store

    with tempfile.TemporaryDirectory() as folder, store.connect(reading=True) as found:
        chosen = choice.choose(runs, experiment, tag, found)
        read = [tracked.read(run, Path(folder) / run.info.run_id, found) for run in chosen]
        comparison = side_by_side.of(read)
        if as_json:
            show_json(comparison.as_dict())
        elif markdown:
            print(tables.markdown(comparison))
        elif html:
            page.write(comparison, html)
            print(html)
        else:
            tables.show(comparison)


@main.command()
@click.option(
    "--output", type=click.Path(path_type=Path), help="Where to; by default build/report.html."
)
def report(output: Path | None) -> None:
    """Write the results of this workspace as pages, with tables and pictures.

    The variants are on the first; each study, and the explanation of softmax and cross-entropy,
    has a page of its own beside it.

    \b
    Example: refashion report
             refashion report --output results.html
    """
    from refashion.base import paths
    from refashion.reporting import book

    for path in book.write(output or paths.ROOT / "build" / "report.html"):
        print(path)


@main.command()
@click.option("--variant", help="The workspace's model of this variant; by default the best one.")
def explain(variant: str | None) -> None:
    """Explain softmax and cross-entropy in numbers, the last of them a model's.

    The overflow that LogSumExp avoids, the gradient against autograd, and entropy, cross-entropy
    and Kullback-Leibler divergence of what the workspace's model answers; by default the best one.

    \b
    Example: refashion explain
             refashion explain --variant softmax
    """
    from rich.console import Console

    from refashion.reporting import explained

    console = Console(markup=False)
    for table in explained.tables(explained.explain(variant)):
        console.print(table)
    console.print(explained.NOTES[-1])


@main.command()
@click.argument("run")
@click.option("--alias", default="champion", show_default=True, help="Points to the version.")
@click.option("--name", help="Of the registered model; by default DATASET-VARIANT.")
@as_json
def register(run: str, alias: str, name: str | None, as_json: bool) -> None:
    """Make a run's model a version of a registered model in MLflow, and point an alias to it.

    The model has its code and weights along, no pickle, and gives the same bits on every machine.
    Registering a run again makes no second version.

    \b
    Example: refashion register 3f2a9c
             refashion register 77b01e --alias challenger --name clothes
             mlflow models serve -m models:/clothes@challenger --env-manager local
    """
    from refashion.serving import registry
    from refashion.tracking import store

    with store.connect(reading=True) as found:
        done = registry.register(registry.one_run(run, found), alias, found, name=name)
    if as_json:
        show_json({**dataclasses.asdict(done), "uri": f"models:/{done.name}@{alias}"})
        return
    what = "registered" if done.is_new else "already there, alias set"
    print(f"models:/{done.name}@{alias}: version {done.version}, run {done.run_id}: {what}")


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", metavar="URI", help="One that `refashion register` made.")
@click.option("--run", metavar="RUN", help="The model of an MLflow run.")
@click.option("--variant", help="The workspace's model of this variant; by default the best one.")
@as_json
def predict(
    images: tuple[str, ...],
    model: str | None,
    run: str | None,
    variant: str | None,
    as_json: bool,
) -> None:
    """Classify image files of 28x28 pixels, light on black as the images of the data set.

    Colour is taken as grey, and what is transparent as black. Which model answers is told on
    stderr.

    \b
    Example: refashion predict boot.png shirt.png
             refashion predict boot.png --variant mlp --json
             refashion predict boot.png --model models:/fashion_mnist-mlp@champion
    """
    if sum(choice is not None for choice in (model, run, variant)) > 1:
        raise click.UsageError("choose one of --model, --run and --variant")

    from refashion.serving import predict as prediction

    pixels = prediction.read([Path(name) for name in images])
    if model is not None:
        chosen = prediction.of_registry(model)
    elif run is not None:
        chosen = prediction.of_run(run)
    else:
        chosen = prediction.of_workspace(variant)
    print(f"model: {chosen.name}", file=sys.stderr)
    rows = []
    for name, probabilities in zip(images, chosen.answer(pixels), strict=True):
        likeliest = max(probabilities, key=probabilities.__getitem__)
        rows.append({"file": name, "class": likeliest, "probabilities": probabilities})
        if not as_json:
            print(name, likeliest, f"{probabilities[likeliest]:.4f}", sep="\t")
    if as_json:
        show_json(rows)


if __name__ == "__main__":
    main()
