"""Commands that are killed at any time, whole or the parent alone, and given again at once."""

import functools
import importlib.util
import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import psutil
import pytest

import injected
from campaign import Campaign, Ground, change, other_rate, processes

pytestmark = pytest.mark.faults

SIGNALS = [
    (kill, whole)
    for whole in (True, False)
    for kill in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
]
"""The signal, and whether the whole group of processes gets it, or the parent alone."""

PATIENCE = 300
"""Seconds after which a command counts as stuck; an orphan may still be at work for some."""

LATER = 20
"""Seconds that an orphan has to end."""


def no_database(ground: Ground) -> None:
    """Let MLflow know nothing."""
    ground.put_back("mlflow.db", "mlflow-artifacts")


def untrained(ground: Ground) -> None:
    """Let one variant not be trained."""
    ground.put_back("models/mlp")


TORCHRUN = ("torchrun", "--nproc-per-node", "2", "stages/__main__.py", "train", "mlp")

CHANGED = ("-S", "variants.mlp.lr=0.05")
"""An experiment's change: one variant is trained, measured and published anew."""

REPRODUCE = ("refashion", "reproduce", "HEAD", "--name", "mlp")


class Work(NamedTuple):
    """A command that is killed."""

    command: tuple[str, ...]
    prepare: Callable[[Ground], None]
    """What to do before it."""

    trials: int
    within: float | None = None
    """Seconds, of a command that leaves the ground as it was; others first run to their end."""


WORK = {
    "dvc repro": Work(("dvc", "repro"), other_rate, 6),
    "dvc exp run": Work(("dvc", "exp", "run", *CHANGED), Ground.put_back, 4),
    "reproduce": Work(REPRODUCE, Ground.put_back, 3, within=15),
    "publish": Work(("refashion", "publish"), no_database, 4, within=10),
    "sweep": Work(("refashion", "sweep", "rates"), Ground.put_back, 3),
    "gate": Work(("refashion", "gate"), Ground.put_back, 1, within=30),
    "torchrun": Work(TORCHRUN, untrained, 4, within=6),
}

Run = Callable[[str], tuple[Ground, float]]


class Commands:
    """Commands in a workspace, whose temporary files lie in a folder beside it."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.temporary = ground.root.parent / "temporary"
        self.temporary.mkdir(exist_ok=True)
        self.output = ground.root.parent / "command.txt"

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start one, in a group of its own."""
        environment = {
            **os.environ,
            **variables,
            **self.ground.workspace.environment,
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": str(self.ground.root / "src"),
        }
        with self.output.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=self.ground.root,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, *command: str) -> bool:
        """Run one to its end; whether all went well."""
        process = self.start(*command)
        try:
            return process.wait(PATIENCE) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False

    def again(self, *command: str) -> list[str]:
        """Give a command that was killed again; `refashion mend` first, where it does not help."""
        if self.run(*command):
            return []
        print("given again:", self.output.read_text())
        for once_more in (("refashion", "mend"), command):
            if not self.run(*once_more):
                print(*once_more, self.output.read_text())
                return ["stuck"]
        return ["mended"]

    def left(self) -> list[str]:
        """Processes that go on, and temporary files."""
        patience = time.monotonic() + LATER
        while processes(self.ground.root) and time.monotonic() < patience:
            time.sleep(0.1)
        return ["stale"] * bool([*processes(self.ground.root), *self.temporary.glob("refashion-*")])


def kill(process: subprocess.Popen[bytes], number: signal.Signals, whole: bool) -> None:
    """Send a signal, and wait for the end."""
    if process.poll() is None:
        (os.killpg if whole else os.kill)(process.pid, number)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.fixture(scope="module")
def unharmed(ground: Ground) -> Run:
    """Run a command that nobody kills: the ground as it then must be, and how long that took."""

    @functools.cache
    def run(name: str) -> tuple[Ground, float]:
        command, prepare, _, within = WORK[name]
        if within:
            return ground, within
        commands = Commands(ground)
        ground.put_back()
        prepare(ground)
        began = time.monotonic()
        assert commands.run(*command), commands.output.read_text()
        return ground.now(), time.monotonic() - began

    return run


@pytest.mark.parametrize("name", WORK)
def test_killed(name: str, ground: Ground, unharmed: Run, campaign: Campaign) -> None:
    killed(name, WORK[name].trials, ground, unharmed, campaign)


@pytest.mark.ci
def test_one_is_killed(ground: Ground, unharmed: Run, campaign: Campaign) -> None:
    killed("publish", 1, ground, unharmed, campaign)


def killed(name: str, number: int, ground: Ground, unharmed: Run, campaign: Campaign) -> None:
    """Kill a command at moments spread over the time that it takes."""
    command, prepare, *_ = WORK[name]
    commands = Commands(ground)
    afterwards, seconds = unharmed(name)
    chance = random.Random(name)
    with campaign.of(f"{name}: killed at any time") as trials:
        for i, part in enumerate(chance.sample(range(number), number)):
            ground.put_back()
            prepare(ground)
            process = commands.start(*command)
            moment = seconds * (part + chance.random()) / number
            time.sleep(moment)
            how, whole = SIGNALS[i % len(SIGNALS)]
            kill(process, how, whole)
            wrong = commands.again(*command) + commands.left()
            who = "group" if whole else "parent"
            trials.add(f"{how.name} to {who} after {moment:.1f} s", wrong + afterwards.check())


CHANGES = (4, 5, 30)
"""Changes of git's index: DVC stages the settings, its own file and results, and puts it back."""


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("name", ["dvc exp run"])
def test_killed_as_it_changes_the_index(
    name: str, ground: Ground, unharmed: Run, campaign: Campaign
) -> None:
    """Just before the new index takes the place of the former one: its lock stays."""
    commands, (experiment, prepare, *_) = Commands(ground), WORK[name]
    (afterwards, _), lock = unharmed(name), ground.root / ".git" / "index.lock"
    traced = ("strace", "-o", os.devnull, "-P", str(lock), "-e", "trace=rename")
    with campaign.of("git's index: killed as it is changed") as trials:
        for number in CHANGES:
            prepare(ground)
            inject = f"inject=rename:signal=KILL:when={number}"
            assert not commands.run(*traced, "-e", inject, *experiment)
            assert lock.exists()
            wrong = commands.again(*experiment) + commands.left()
            trials.add(f"change {number}", wrong + afterwards.check())


MOMENTS = 8
"""Of all calls by which DVC changes files, so many are chosen; always the same ones."""


@pytest.mark.usefixtures("strace")
def test_dvc_is_killed_at_its_nth_call(ground: Ground, campaign: Campaign) -> None:
    """`dvc repro` of one stage; what the stage itself does is tried elsewhere."""
    commands, arguments = Commands(ground), ("repro", "check")
    dvc = {**ground.workspace.environment, "program": injected.dvc_itself}

    def prepare() -> None:
        ground.put_back()
        change(ground, seed=5)

    prepare()
    moments = injected.moments(ground.root, *arguments, **dvc)
    afterwards = ground.now()
    with campaign.of("dvc repro: KILL at the Nth call") as trials:
        for moment in random.Random(0).sample(moments, MOMENTS):
            prepare()
            outcome = injected.inject("KILL", moment, ground.root, *arguments, **dvc)
            assert outcome.code == -signal.SIGKILL, outcome
            wrong, found = commands.again("dvc", *arguments), afterwards.check()
            if found == ["stale"]:  # DVC's own temporary file, where no stage had to run again
                wrong += ["mended"] * commands.run("refashion", "mend")
                found = afterwards.check()
            trials.add(moment, wrong + found + commands.left())


QUEUE = ("dvc", "exp", "run", "--queue", *CHANGED)
START = ("dvc", "queue", "start")
IN_QUEUE = 120
"""Seconds that a task of the queue has."""

ASKED_AGAIN = 2
"""Seconds until DVC is asked for its state again, which takes as long."""


def status(commands: Commands) -> str:
    """States of the queue's tasks; once more if it was asked while a worker wrote its files."""
    asked = any(commands.run("dvc", "queue", "status") for _ in range(2))
    return commands.output.read_text() if asked else ""


def worked_off(commands: Commands) -> bool:
    """Whether no task seems to run, and another experiment can be queued and runs to its end."""
    told = status(commands)
    if not told or "Running" in told or not (commands.run(*QUEUE) and commands.run(*START)):
        return False
    patience = time.monotonic() + IN_QUEUE
    while time.monotonic() < patience:
        time.sleep(ASKED_AGAIN)
        told = status(commands)
        if "Success" in told and not {"Running", "Queued"} & {*told.split()}:
            return True
        if not told or not processes(commands.ground.root):
            return False  # nobody is left to finish it
    return False


def test_queue_is_killed(ground: Ground, campaign: Campaign) -> None:
    """Its worker and the stage under way, in mid-training."""
    commands = Commands(ground)
    ground.put_back()
    assert worked_off(commands), commands.output.read_text()
    afterwards = ground.now()
    exps = ground.root / ".dvc" / "tmp" / "exps"
    with campaign.of("queue: killed at any time") as trials:
        for moment in (0.0, 4.0, 8.0):
            ground.put_back()
            assert commands.run(*QUEUE) and commands.run(*START)
            patience = time.monotonic() + PATIENCE
            while not processes(exps) and time.monotonic() < patience:
                time.sleep(0.1)
            time.sleep(moment)
            for pid in processes(ground.root):
                os.kill(pid, signal.SIGKILL)
            wrong = []
            if not worked_off(commands):
                mended = commands.run("refashion", "mend") and worked_off(commands)
                wrong = ["mended" if mended else "stuck"]
            trials.add(moment, wrong + commands.left() + afterwards.check())


def long_trials(ground: Ground) -> None:
    """Let the trials of the sweep take seconds."""
    ground.put_back()
    space = {"lr": [0.02, 0.1], "epochs": [200]}
    change(ground, sweeps={"rates": {"variant": "softmax", "space": space}})


ON_RAY = ("refashion", "sweep", "rates", "--ray", "auto")


@pytest.mark.skipif(
    not importlib.util.find_spec("ray"), reason="needs Ray: make environment EXTRAS=ray"
)
def test_ray_loses_a_worker(ground: Ground, campaign: Campaign) -> None:
    """The sweep itself goes on, and has the table that it has without Ray."""
    commands = Commands(ground)
    long_trials(ground)
    assert commands.run("refashion", "sweep", "rates"), commands.output.read_text()
    afterwards = ground.now()
    with (
        campaign.of("Ray: a worker is killed") as trials,
        tempfile.TemporaryDirectory() as short,  # no socket may have a long name
    ):
        for moment in (0.0, 0.7):
            long_trials(ground)
            process = commands.start(*ON_RAY, RAY_TMPDIR=short)
            while not (workers := ray_workers(process.pid)) and process.poll() is None:
                time.sleep(0.05)
            time.sleep(moment)
            for worker in workers:
                with suppress(psutil.NoSuchProcess):
                    worker.kill()
            process.wait(PATIENCE)
            assert workers
            wrong = ["stuck"] * (process.returncode != 0) + commands.left()
            trials.add(moment, wrong + afterwards.check())


def ray_workers(driver: int) -> list[psutil.Process]:
    """Processes that train for a driver which started its own Ray."""
    try:
        started = psutil.Process(driver).children(recursive=True)
        return [process for process in started if process.name() == "ray::_epochs"]
    except psutil.NoSuchProcess:
        return []
