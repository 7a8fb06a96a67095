"""The ``refashion`` command, a function for each of its subcommands."""

import dataclasses
import io
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NoReturn

import click

from refashion.base import machine
from refashion.base.errors import UserError, one_line
from refashion.base.workspace import CODE, Workspace

if TYPE_CHECKING:
    from refashion.tracking.store import Store

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A command on the checkout that holds the working directory."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command; say which workspace it works on, where that is not its code's own."""
        if context.obj is None:  # tests hand in a workspace
            context.obj = Workspace.here()
            if context.obj.root != CODE:
                print(f"working on {context.obj.root} with the code of {CODE}", file=sys.stderr)
        return super().invoke(context)


class Group(click.Group):
    """Commands that answer a usage error in one line."""

    command_class = Command

    def invoke(self, context: click.Context) -> Any:
        """Run a command; turn a usage error into one line and exit code 2."""
        try:
            return super().invoke(context)
        except (UserError, OSError) as error:
            if context.params["debug"] or isinstance(error, BrokenPipeError):
                raise
            print(f"error: {one_line(error)}", file=sys.stderr)
            _offer_to_mend()
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)


def _offer_to_mend() -> None:
    """Say so, if the cause of an error may be that DVC was killed."""
    from refashion.reproduction import mend

    with suppress(UserError, OSError):  # outside a checkout
        for fault in mend.blocking(Workspace.here()):
            print(fault.advice, file=sys.stderr)


PATH = click.Path(path_type=Path)
name_option = click.option("--name", help="The run of this name alone, as weight_decay/decay_3.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def answer(value: Any, lines: Iterable[str], as_json: bool, yes: bool = True) -> NoReturn:
    """Print a value as JSON with sorted keys, or lines, and exit: 0 for yes, 1 for no."""
    if as_json:
        text = json.dumps(value, default=dataclasses.asdict)
        finite = json.loads(text, parse_constant=str)  # JSON has no infinity
        lines = [json.dumps(finite, indent=2, sort_keys=True)]
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:  # of nothing else that is at work
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        raise UserError(f"standard output: {error.strerror}; free some space") from None
    sys.exit(not yes)


@click.group(cls=Group, context_settings=CONTEXT)
@click.option("--debug", is_flag=True, help="Show where in the code an error comes from.")
@click.version_option(package_name="refashion")
def main(debug: bool) -> None:
    """Training runs anyone can reproduce, bit for bit.

    RUN is the id of an MLflow run (or its beginning) or the name of a DVC experiment. Runs are
    looked for in MLFLOW_TRACKING_URI, by default in mlflow.db of the workspace, the checkout that
    holds the working directory. The exit code is 0 if the answer is yes, 1 if it is no, 2 on a
    usage error.

    Completion in bash (zsh and fish likewise): eval "$(_REFASHION_COMPLETE=bash_source refashion)"

    Example: refashion reproduce 3f2a9c
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed: what is opened next would be in its place
            descriptor = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, mode))
    machine.collect_garbage_seldom()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text


@contextmanager
def store_to_read(workspace: Workspace) -> "Iterator[tuple[Store | None, Path]]":
    """Give the store, if there is one, and a folder to read runs into."""
    from refashion.reproduction import worktree
    from refashion.tracking import store

    with worktree.temporary_folder() as folder:
        if os.environ.get("MLFLOW_TRACKING_URI") or store.default_database(workspace).exists():
            with store.connect(workspace, reading=True) as connected:
                yield connected, folder
        else:
            yield None, folder


@main.command()
@click.argument("run")
@name_option
@click.option("--isolated", is_flag=True, help="Without a network, on a read-only system (Linux).")
@json_option
@click.pass_obj
def reproduce(
    workspace: Workspace, run: str, name: str | None, isolated: bool, as_json: bool
) -> None:
    """Run again, and say whether the result is the same.

    RUN may also be a git revision. Its commit, uncommitted changes and settings are brought back
    in a temporary folder, its stages run there, and every digest is compared. The verdict is
    written on the run in MLflow, as tags and as an attestation.

    This runs the code of the run, with your rights. Of a run that you do not trust, use --isolated:
    its stages then see Python, their own folder, which alone they may write to, and a processor; no
    network, no home folder, no secret of the environment. Data come from DVC's cache.

    \b
    Example: refashion reproduce 3f2a9c
             refashion reproduce 3f2a9c --isolated
             refashion reproduce puffy-hake --name mlp
             refashion reproduce main
    """
    from refashion.reproduction import reproduce as reproduction

    attestations = []
    with store_to_read(workspace) as (store, folder):
        for state, runs in reproduction.find(run, folder, store, workspace, name).items():
            for attestation in reproduction.reproduce(state, runs, workspace, isolated):
                attestations.append(attestation)
                if store:
                    try:
                        reproduction.publish(attestation, store)
                    except Exception as error:  # of MLflow, any: the verdict is worth more
                        reason = " ".join(str(error).split())
                        print(f"warning: not written to MLflow: {reason}", file=sys.stderr)
    lines = (line for attestation in attestations for line in reproduction.lines(attestation))
    same = all(attestation["verdict"]["outcome"] != "different" for attestation in attestations)
    answer(attestations, lines, as_json, same)


@main.command()
@click.argument("revision", default="HEAD")
@json_option
@click.pass_obj
def verify(workspace: Workspace, revision: str, as_json: bool) -> None:
    """Run a commit's whole pipeline again and compare every output with its dvc.lock.

    This runs the code of the commit, with your rights.

    \b
    Example: refashion verify
             refashion verify v1.0
    """
    from refashion.reproduction import revisions
    from refashion.reproduction import verify as verification

    commit = revisions.require(revision, workspace.root)
    rows = verification.verify(workspace, commit)
    outcomes = ("{path}: different: promised {promised}, actual {actual}", "{path}: identical")
    lines = (outcomes[row["identical"]].format(**row) for row in rows)
    same = all(row["identical"] for row in rows)
    answer({"commit": commit, "outputs": rows}, lines, as_json, same)


@main.command()
@click.argument("a")
@click.argument("b")
@name_option
@json_option
@click.pass_obj
def diverge(workspace: Workspace, a: str, b: str, name: str | None, as_json: bool) -> None:
    """Find the first epoch where two runs diverge, and why.

    A and B are runs, experiments or git revisions, or record.json files.

    \b
    Example: refashion diverge 3f2a9c 77b01e
             refashion diverge main puffy-hake --name mlp
    """
    from refashion.reproduction import diverge as divergence

    with store_to_read(workspace) as (store, folder):
        first = divergence.find(a, folder / "a", store, workspace, name)
        second = divergence.find(b, folder / "b", store, workspace, name)
        difference = divergence.diverge(first, second, workspace)
    answer(difference, divergence.lines(difference), as_json, difference["same_outputs"])


@main.command()
@click.argument("thing", metavar="FILE|DIGEST")
@json_option
@click.pass_obj
def which(workspace: Workspace, thing: str, as_json: bool) -> None:
    """Name the run that a file or a digest comes from, and the command that makes it again.

    Weights, wherever they lie, a table of a run, its metrics or record, or at least six digits of
    the SHA-256 of one. This workspace, all commits with DVC's experiments, and MLflow are searched.

    \b
    Example: refashion which models/mlp/weights.safetensors
             refashion which submission.csv
             refashion which 7e403c6c
    """
    from refashion.reproduction import which as origins

    with store_to_read(workspace) as (store, _):
        sources = origins.which(thing, workspace, store)
        lines = [line for source in sources for line in source.lines()]
        lines = lines or [f"{thing}: of no run in {origins.searched(workspace, store)}"]
    answer(sources, lines, as_json, bool(sources))


@main.command()
@click.option("--baseline", metavar="REV", help="Refuse runs significantly worse than there.")
@click.option("--quick", is_flag=True, help="Compare committed files alone, without data.")
@json_option
@click.pass_obj
def gate(workspace: Workspace, baseline: str | None, quick: bool, as_json: bool) -> None:
    """Check the results against the thresholds and the reproducibility guarantee.

    Fresh (dvc status), reproducible under one thread and under the lowest instruction set, good
    enough (gates: in params.yaml) and, with a baseline, not significantly worse (McNemar). The
    summary also goes to the file that GITHUB_STEP_SUMMARY names.

    With --quick, in seconds and without data: whether locks, committed results, records and
    params.yaml fit together.

    \b
    Example: refashion gate
             refashion gate --baseline origin/main
             refashion gate --quick
    """
    if quick and baseline:
        raise click.UsageError("choose one of --quick and --baseline")

    from refashion.reproduction import consistency
    from refashion.reproduction import gate as gates

    checks = []
    for check in consistency.check(workspace) if quick else gates.gate(workspace, baseline):
        checks.append(check)
        outcome = "holds" if check.holds else "FAILS"
        print(f"{outcome}  {check.name}: {check.detail}", file=sys.stderr)
    summary = consistency.summary(checks)
    if file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(file).open("a", encoding="utf-8") as appended:
            appended.write(summary)
    answer(checks, [summary], as_json, all(check.holds for check in checks))


@main.command()
@click.argument("name", metavar="SWEEP|VARIANT")
@click.option("-S", "overrides", metavar="NAME=VALUES", multiple=True, help="What to sweep.")
@click.option("--search", type=click.Choice(["grid", "random", "tpe", "halving"]))
@click.option("--trials", type=int, help="How many settings to try; by default a whole grid.")
@click.option("--name", "experiment", help="Of the sweep and of the DVC experiment.")
@click.option("--processes", type=click.IntRange(1), help="Train in so many at once.")
@click.option("--ray", metavar="auto|HOST:PORT", help="Train on a Ray cluster.")
@click.pass_obj
def sweep(
    workspace: Workspace,
    name: str,
    overrides: tuple[str, ...],
    search: str | None,
    trials: int | None,
    experiment: str | None,
    processes: int | None,
    ray: str | None,
) -> None:
    """Train a variant with many settings, and publish every trial.

    A SWEEP is one that params.yaml defines. With -S, a VARIANT is swept in a DVC experiment: values
    are written as `dvc exp run -S` has them, and intervals as interval(LOW,HIGH) or
    tag(log,interval(LOW,HIGH)). However many processes or machines there are, the table of trials
    is the same; a sweep that was interrupted goes on from the trials that are done.

    \b
    Example: refashion sweep lr_and_decay
             refashion sweep mlp -S 'lr=0.05,0.1,0.2' -S 'seed=range(0,3)'
             refashion sweep mlp -S 'lr=tag(log,interval(0.01,1))' --search tpe --trials 24
    """
    from refashion.reproduction import experiments

    if processes and ray:
        raise click.UsageError("choose one of --processes and --ray")
    if processes:
        os.environ["REFASHION_PROCESSES"] = str(processes)
    if ray == "":
        raise click.UsageError("--ray: name auto, or HOST:PORT")
    if ray:
        os.environ["REFASHION_RAY"] = ray
    if not overrides:
        if (search, trials, experiment) != (None, None, None):
            raise click.UsageError("a sweep of params.yaml has its own settings; name some by -S")
        experiments.sweep(workspace, name)
        return
    own_name, definition = experiments.define(name, overrides, search=search, trials=trials)
    experiments.sweep(workspace, own_name if experiment is None else experiment, definition)


@main.command()
@click.argument("run")
@click.option("--name", required=True, help="Of the DVC experiment.")
@click.pass_obj
def promote(workspace: Workspace, run: str, name: str) -> None:
    """Make a trial of a sweep a DVC experiment, and hold its weights against the trial's.

    RUN may also be the name of a trial here. `dvc exp apply NAME` brings the experiment into the
    workspace.

    \b
    Example: refashion promote lr_and_decay/mlp.trial_23 --name best
             refashion promote 3f2a9c --name best
    """
    from refashion.reproduction import diverge as divergence
    from refashion.reproduction import experiments
    from refashion.runs import listing

    with store_to_read(workspace) as (store, folder):
        if "/" in run:
            trial = listing.find(workspace, run)
        else:
            trial = divergence.find(run, folder, store, workspace, None).run
        made = experiments.promote(workspace, trial, name)
        was, now = (record.outputs["weights"][:12] for record in (trial.record, made))
    outcome = "the same weights" if was == now else "OTHER weights"
    line = f"{made.name} in experiment {name}: {outcome}, {now}; {trial.record.name}: {was}"
    answer(None, [line], False, was == now)


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@click.pass_obj
def publish(workspace: Workspace, names: tuple[str, ...], as_json: bool) -> None:
    """Publish this workspace's runs and those of all DVC experiments to MLflow, each once.

    With a NAME, this workspace's run of that name alone. Builds an emptied database anew, and fills
    a tracking server that is named after the runs were made; where nothing is missing, nothing
    changes. In the workspace's own database, the name of an experiment that DVC no longer has goes
    from the tag dvc_exp of its runs to dvc_exp_removed.

    \b
    Example: refashion publish
             refashion publish mlp
             MLFLOW_TRACKING_URI=http://server:5000 refashion publish
    """
    from refashion.reproduction import republish
    from refashion.tracking import store

    rows, parts = [], Counter[str]()
    with store.connect(workspace) as connected:
        for row in republish.republish(connected, workspace, names):
            rows.append(row)
            if row["outcome"] == "published" and "parent" in row:
                parts["{source}: {parent}".format(**row)] += 1
            elif not as_json and row["outcome"] != "already there":
                print("{source}: {outcome}: {detail}".format(**row), flush=True)
    outcomes = Counter(row["outcome"] for row in rows)
    told = [f"{parent}: child runs published: {number}" for parent, number in parts.items()]
    if number := outcomes["already there"]:
        told.append(f"runs that were there already: {number}")
    answer(rows, told, as_json, not outcomes["missing"])


@main.command()
@click.option("--check", is_flag=True, help="Change nothing: tell what there is to mend.")
@click.pass_obj
def mend(workspace: Workspace, check: bool) -> None:
    """Put right what killed processes have left in the workspace.

    Locks of DVC, files of its queue and dvc.lock files that are damaged, what DVC has half saved of
    a run, locks of git, files that an experiment has staged, temporary files, checkouts and folders
    of experiments, and queued experiments that seem to run for ever. What a living process uses
    stays. With --check, the exit code is 1 if there is anything.

    \b
    Example: refashion mend
    """
    from refashion.reproduction import mend as mending

    nothing = "there is nothing to mend"
    if check:
        told = [fault.advice for fault in mending.faults(workspace)]
        answer(None, told or [nothing], False, not told)

    def lines() -> Iterator[str]:
        mended = mending.mend(workspace)
        try:
            yield next(mended, nothing)
            yield from mended
        except OSError as error:  # not of standard output
            raise UserError(one_line(error)) from None

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is done is told, whatever comes next
    answer(None, lines(), False)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
@click.pass_obj
def ui(workspace: Workspace, port: int) -> None:
    """Show the runs in MLflow's pages, in a browser where there is one, until Ctrl-C.

    Prints the address of the table of runs, the newest first, with settings and test metrics. A
    database is served on this machine alone; MLFLOW_TRACKING_URI names another one, or a server.

    \b
    Example: refashion ui
             MLFLOW_TRACKING_URI=sqlite:///build/demo/mlflow.db refashion ui --port 5001
    """
    from refashion.tracking import store
    from refashion.tracking import ui as pages

    with store.connect(workspace, reading=True) as connected:
        chosen = pages.experiment(workspace, connected)
    pages.show(connected, chosen, port, workspace.logs / "ui.log")


@main.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--experiment", metavar="NAME", help="Runs of an experiment, MLflow's or DVC's.")
@click.option("--tag", metavar="KEY=VALUE", help="Runs with this tag (of the experiment).")
@json_option
@click.option("--markdown", is_flag=True, help="Print tables for GitHub.")
@click.option("--html", type=PATH, help="Write a page with pictures there.")
@click.pass_obj
def compare(
    workspace: Workspace,
    runs: tuple[str, ...],
    experiment: str | None,
    tag: str | None,
    as_json: bool,
    markdown: bool,
    html: Path | None,
) -> None:
    """Compare runs: settings, metrics, means over seeds and tests of significance.

    The page of a sweep has its metrics drawn against the settings that differ, and its learning
    curves over each other. Of an experiment or a tag, runs that sum up others are compared with
    each other; where there is but one, as of a sweep, those that it sums up are.

    \b
    Example: refashion compare 3f2a9c 77b01e
             refashion compare --experiment puffy-hake --markdown
             refashion compare --experiment lr_and_decay
             refashion compare --tag name=mlp --html build/mlp.html
    """
    if not (runs or experiment or tag):
        raise click.UsageError("name at least one RUN, an --experiment or a --tag")
    if as_json + markdown + (html is not None) > 1:
        raise click.UsageError("choose one of --json, --markdown and --html")
    if tag and "=" not in tag:
        raise click.BadParameter(f"{tag!r} is not KEY=VALUE", param_hint="--tag")

    from refashion.reporting import choice, page, side_by_side, tables
    from refashion.tracking import published, store

    with TemporaryDirectory() as folder, store.connect(workspace, reading=True) as connected:
        chosen = choice.choose(runs, experiment, tag, connected)
        read = [published.read(run, Path(folder) / run.info.run_id, connected) for run in chosen]
        comparison = side_by_side.of([r.run for r in read], {r.run: r.id for r in read})
        if html:
            page.write(html, page.of(comparison, workspace.test), page.stamp(workspace))
    if as_json:
        answer(comparison.as_dict(), [], as_json)
    if html:
        lines = [str(html)]
    elif markdown:
        lines = [tables.markdown(comparison)]
    else:
        lines = tables.lines(tables.tables(comparison), comparison.notes)
    answer(None, lines, as_json)


@main.command()
@click.option("--output", type=PATH, help="Page to write, by default build/report.html.")
@click.pass_obj
def report(workspace: Workspace, output: Path | None) -> None:
    """Write the results of this workspace as pages, with tables and pictures.

    The variants are on the first; each study and each sweep that has run, and the explanation of
    softmax and cross-entropy, has a page of its own beside it.

    \b
    Example: refashion report
             refashion report --output results.html
    """
    from refashion.reporting import page

    paths = page.write_all(workspace, output or workspace.root / "build" / "report.html")
    answer(None, [*map(str, paths)], as_json=False)


@main.command()
@click.option("--run", "name", metavar="NAME", help="A variant trained here; by default the best.")
@click.pass_obj
def explain(workspace: Workspace, name: str | None) -> None:
    """Explain softmax and cross-entropy in numbers, the last of them a model's.

    The overflow that LogSumExp avoids, the gradient against autograd, and entropy, cross-entropy
    and Kullback-Leibler divergence of the predictions of this workspace's model.

    \b
    Example: refashion explain
             refashion explain --run softmax
    """
    from refashion.reporting import explained, tables

    shown = explained.tables(*explained.explain(workspace, name))
    answer(None, tables.lines(shown, explained.NOTES[-1:]), as_json=False)


@main.command()
@click.argument("run")
@click.option("--alias", default="champion", show_default=True, help="Points to the version.")
@click.option("--name", help="Of the registered model; by default DATASET-NAME.")
@json_option
@click.pass_obj
def register(workspace: Workspace, run: str, alias: str, name: str | None, as_json: bool) -> None:
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

    with store.connect(workspace, reading=True) as connected:
        chosen = registry.one_run(run, connected)
        done = registry.register(chosen, alias, connected, name=name)
    uri = f"models:/{done.name}@{alias}"
    outcome = "registered" if done.is_new else "already there, alias set"
    line = f"{uri}: version {done.version}, run {done.run_id}: {outcome}"
    answer({**dataclasses.asdict(done), "uri": uri}, [line], as_json)


@main.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--model",
    metavar="MODEL",
    help="A variant trained here, as mlp; an MLflow run; or what `refashion register` made. By "
    "default the best variant.",
)
@click.option("--resize", is_flag=True, help="Scale other sizes (Lanczos' filter, black borders).")
@json_option
@click.pass_obj
def predict(
    workspace: Workspace, images: tuple[str, ...], model: str | None, resize: bool, as_json: bool
) -> None:
    """Classify image files of 28x28 pixels, light on black as the images of the data set.

    Colour is taken as grey, and what is transparent as black. Which model answers, and which images
    cannot be read, is told on stderr; the exit code is 1 if there are such images.

    \b
    Example: refashion predict examples/boot.png examples/shirt.png
             refashion predict examples/boot.png --model mlp --json
             refashion predict boot.jpg --model models:/fashion_mnist-mlp@champion --resize
    """
    from refashion.evaluation import classify
    from refashion.serving import predict as prediction

    chosen = prediction.load(workspace, model)
    print(f"model: {chosen.name} from {chosen.source}", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for file in images:
        try:
            probabilities = chosen.probabilities(prediction.read(Path(file), resize))
        except UserError as error:
            print(f"error: {file}: {error}", file=sys.stderr)
        else:
            (row,) = classify.answers(chosen.classes, probabilities)
            rows.append({"file": file, **row})
    lines = (f"{r['file']}\t{r['class']}\t{r['probabilities'][r['class']]:.4f}" for r in rows)
    answer(rows, lines, as_json, len(rows) == len(images))


if __name__ == "__main__":
    main()
