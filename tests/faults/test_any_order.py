"""Work, kills, outages and accidents in any order, against a model of what must be there."""

import random
import shutil
from pathlib import Path

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

import injected
from campaign import Campaign, Ground, published, results
from refashion.tracking.integrity import COMPLETE

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("strace")]

NAME = "mlp"
FILES = (f"models/{NAME}", f"reports/evaluation/{NAME}")
STAGES = {"train": FILES[0], "evaluate": FILES[1], "track": "mlflow-artifacts"}
DEAD = "http://127.0.0.1:9"


class Order(RuleBasedStateMachine):
    """One variant, as a user trains, measures and publishes it."""

    ground: Ground
    database: Path
    moments: dict[str, list[injected.Moment]]
    trials: Campaign

    @initialize()
    def begin(self) -> None:
        """Neither results nor runs are there."""
        self.ground.put_back(*FILES, "mlflow-artifacts")
        self.altered: set[str] = set()
        self.steps: list[str] = []
        self.forget()

    def dvc(self, *arguments: str, **environment: str) -> None:
        """Run a command of DVC."""
        self.steps.append(" ".join(("dvc", *arguments)))
        environment = {**self.ground.workspace.environment, **environment}
        outcome = injected.dvc(self.ground.root, *arguments, **environment)
        assert outcome.code == 0, (self.steps, outcome)

    def stage(self, name: str, **environment: str) -> injected.Outcome:
        """Run a stage for the variant."""
        self.steps.append(name)
        environment = {**self.ground.workspace.environment, **environment}
        return injected.stage(self.ground.root, name, NAME, **environment)

    def sound(self, *folders: str) -> bool:
        """Whether all files of results are there, and none is altered."""
        needed = [name for name in self.ground.expected.outputs if name.startswith(folders)]
        return self.altered.isdisjoint(needed) and all(
            (self.ground.root / name).exists() for name in needed
        )

    @rule()
    def train(self) -> None:
        """Always possible."""
        assert self.stage("train").code == 0
        self.altered = {name for name in self.altered if not name.startswith(FILES[0])}

    @rule()
    def evaluate(self) -> None:
        """Refused without the weights of the record."""
        is_sound = self.sound(FILES[0])
        outcome = self.stage("evaluate")
        assert outcome.is_told and (outcome.code == 0) == is_sound, outcome

    @rule()
    def publish(self) -> None:
        """Refused if anything is missing or altered."""
        is_sound = self.sound(*FILES)
        outcome = self.stage("track")
        assert outcome.is_told and (outcome.code == 0) == is_sound, outcome
        if is_sound:
            self.complete = {1}

    @rule()
    def repro(self) -> None:
        """Always possible; it makes what is missing or altered, and publishes what it made."""
        self.dvc("repro")
        self.altered.clear()
        self.complete = self.complete | {1}

    @rule()
    def experiment(self) -> None:
        """Try another learning rate, published elsewhere, and go back as the README says."""
        elsewhere = self.ground.root.parent / "elsewhere" / "mlflow.db"
        elsewhere.parent.mkdir(exist_ok=True)
        shutil.copyfile(self.database, elsewhere)
        command = ("exp", "run", "-S", "variants.mlp.lr=0.05")
        self.dvc(*command, MLFLOW_TRACKING_URI=f"sqlite:///{elsewhere}")
        self.ground.workspace.run("git", "checkout", "--quiet", ".")
        self.dvc("checkout", "--force")
        self.altered.clear()

    @rule()
    def collect(self) -> None:
        """Remove from DVC's cache what no file of the workspace needs."""
        self.dvc("gc", "--workspace", "--force")

    @rule()
    def mend(self) -> None:
        """Remove what was left behind: never a result."""
        before = results(self.ground.root)
        self.steps.append("mend")
        self.ground.workspace.run("refashion", "mend")
        assert results(self.ground.root) == before, self.steps

    @rule()
    def outage(self) -> None:
        """No server answers: that is told, and nothing is lost."""
        outcome = self.stage("track", MLFLOW_TRACKING_URI=DEAD)
        assert outcome.is_told and outcome.code == 2, outcome

    @rule(name=st.sampled_from([*STAGES]), chance=st.randoms(use_true_random=False))
    def kill(self, name: str, chance: random.Random) -> None:
        """Kill a stage at any call that it makes."""
        moment = chance.choice(self.moments[name])
        self.steps.append(f"kill {name} at {moment}")
        environment = self.ground.workspace.environment
        injected.inject("KILL", moment, self.ground.root, name, NAME, **environment)
        if name == "track" and self.sound(*FILES):
            self.complete = self.complete | {1}
        if name == "train":  # what stood there may be the new one, or still the altered one
            self.altered &= set(self.ground.half_written())

    @rule(name=st.sampled_from(["weights.safetensors", "history.csv"]))
    def alter(self, name: str) -> None:
        """Alter the last bit of a file."""
        path = self.ground.root / FILES[0] / name
        if path.exists() and f"{FILES[0]}/{name}" not in self.altered:
            self.steps.append(f"alter {name}")
            content = path.read_bytes()
            path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            self.altered.add(f"{FILES[0]}/{name}")

    @rule()
    def forget(self) -> None:
        """Lose the database with all runs."""
        self.steps.append("forget")
        shutil.copyfile(self.database, self.ground.root / "mlflow.db")
        self.complete = {0}

    @rule()
    def lose(self) -> None:
        """Lose the results."""
        self.steps.append("lose")
        shutil.rmtree(self.ground.root / FILES[0], ignore_errors=True)
        self.altered.clear()

    @invariant()
    def nothing_is_half_written_or_doubled(self) -> None:
        """A file of the results is missing, whole or altered by us; a run is published once."""
        assert set(self.ground.half_written()) <= self.altered, self.steps
        rows = published(self.ground.root).get(NAME, [])
        complete = [row for row in rows if row[0] == COMPLETE]
        assert len(complete) in self.complete, self.steps

    def teardown(self) -> None:
        """All can be made whole again."""
        environment = self.ground.workspace.environment
        repro = injected.dvc(self.ground.root, "repro", **environment)
        again = injected.stage(self.ground.root, "track", NAME, **environment)
        self.trials.add(self.steps, self.ground.check(repro, again, published=(NAME,)))


def test_any_order(ground: Ground, campaign: Campaign, empty_database: Path) -> None:
    moments = {}
    for name, missing in STAGES.items():
        ground.put_back(missing)
        if name == "track":
            shutil.copyfile(empty_database, ground.root / "mlflow.db")
        environment = ground.workspace.environment
        moments[name] = injected.moments(ground.root, name, NAME, **environment)
    with campaign.of("work, kills and accidents in any order") as trials:
        here = {"ground": ground, "database": empty_database, "moments": moments, "trials": trials}
        machine = type("Here", (Order,), here)
        few = settings(max_examples=6, stateful_step_count=8, phases=[Phase.generate])
        run_state_machine_as_test(machine, settings=few)
