"""What killed workers leave of DVC's queue is put right, and the queue works again."""

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

import small_pipeline
from campaign import processes, restore, until
from refashion.base.workspace import Workspace
from refashion.reproduction import mend, queue

STAGES = """
stages:
  wait:
    cmd: python -c "import time; time.sleep(SECONDS)"
    always_changed: true
"""


class Project(small_pipeline.Workspace):
    """A project of DVC whose only stage waits."""

    @property
    def experiments(self) -> Path:
        """DVC's folder of experiments."""
        return self.root / ".dvc" / "tmp" / "exps"

    def start(self, seconds: int) -> None:
        """Queue an experiment whose stage waits as long, and start a worker."""
        (self.root / "dvc.yaml").write_text(STAGES.replace("SECONDS", str(seconds)))
        self.commit("Wait")
        self.run("dvc", "exp", "run", "--queue")
        self.run("dvc", "queue", "start")

    def kill(self) -> None:
        """Kill whoever works there."""
        for pid in processes(self.root):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not processes(self.root))

    def damage(self, pattern: str) -> list[str]:
        """Let files of experiments be half there, since a while; their names."""
        files = sorted(self.experiments.glob(pattern))
        for file in files:
            file.write_bytes(b'[{"half')
            os.utime(file, (0, 0))
        return [str(file.relative_to(self.root)) for file in files]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose queue's worker was killed, and the experiment with it."""
    folder = tmp_path_factory.mktemp("queue")
    variables = {"DVC_SITE_CACHE_DIR": str(folder / "cache"), "DVC_NO_ANALYTICS": "1"}
    project = Project(folder / "project", {}, small_pipeline.ENVIRONMENT | variables)
    project.root.mkdir()
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    project.start(600)
    until(lambda: [*project.experiments.glob("run/*/*.json")])
    assert not list(mend.faults(Workspace(project.root)))  # somebody is at work
    project.kill()
    restore(project.root, folder / "pristine")
    return project


@pytest.fixture
def project(killed: Project) -> Project:
    """The same as after the kill."""
    restore(killed.root.with_name("pristine"), killed.root)
    return killed


@pytest.mark.ci
def test_dead_experiment_is_named_and_the_queue_works_again(project: Project) -> None:
    assert "Running" in project.run("dvc", "queue", "status")
    damaged = project.damage("celery/broker/control/*pidbox.exchange")
    assert "unexpected error" in project.run("dvc", "queue", "status", code=255)
    *removed, task, folder = mend.mend(Workspace(project.root))
    assert removed == [f"{name}: is damaged: removed" for name in damaged]
    assert task.startswith("experiment ")
    assert task.endswith(": its process was killed: marked as failed; queue it again")
    assert folder.endswith(": of an experiment that was killed: removed")
    project.start(0)
    results = project.experiments / "celery" / "result"
    until(lambda: any("SUCCESS" in file.read_text() for file in results.glob("celery-*")))
    status = project.run("dvc", "queue", "status")
    project.kill()  # the worker, which waits for more
    assert "Failed" in status and "Running" not in status


RESULT = "celery/result/celery-task-meta-x"
MESSAGES = "celery/broker/*/*.*"


@pytest.mark.parametrize("pattern", queue.JSON)
def test_damaged_files_are_named_and_their_experiment(project: Project, pattern: str) -> None:
    (project.experiments / RESULT).touch()  # no task has one yet
    files = project.damage(pattern)
    *damaged, left = [fault.what for fault in mend.faults(Workspace(project.root))]
    assert files and damaged[: len(files)] == [f"{name}: is damaged" for name in files]
    assert left.endswith(": of an experiment that was killed")
    dead = damaged[len(files) :]
    if pattern == MESSAGES:  # nothing tells of the experiment any more
        assert not dead
    else:
        (what,) = dead
        assert what.startswith("experiment ") and what.endswith(": its process was killed")


def test_files_elsewhere_stay(project: Project, tmp_path: Path) -> None:
    """A link in the place of a folder would have them removed."""
    (tmp_path / "letter.txt").write_text("Dear")
    results = project.experiments / "celery" / "result"
    results.rmdir()
    results.symlink_to(tmp_path)
    assert not list(queue.damaged(project.experiments))


def test_one_that_was_killed_before_its_process_began_is_named(project: Project) -> None:
    for file in project.experiments.glob("run/*/*.json"):
        file.unlink()
    what, _ = [fault.what for fault in mend.faults(Workspace(project.root))]
    assert what.startswith("experiment ") and what.endswith(": its process was killed")


def test_one_whose_process_has_ended_is_left_to_its_worker(project: Project) -> None:
    (file,) = project.experiments.glob("run/*/*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"returncode": 0}))
    with (project.experiments / "celery" / "worker.out").open("w"):
        assert not list(queue.dead(project.experiments))
    assert len(list(queue.dead(project.experiments))) == 1


def test_one_that_has_ended_is_left_alone(project: Project) -> None:
    (message,) = project.experiments.glob(queue.TAKEN)
    task = json.loads(message.read_bytes())["headers"]["id"]
    result = project.experiments / "celery" / "result" / f"celery-task-meta-{task}"
    result.write_text('{"status": "FAILURE"}')
    assert not list(queue.dead(project.experiments))
    result.write_text('{"status": "STARTED"}')
    assert len(list(queue.dead(project.experiments))) == 1
