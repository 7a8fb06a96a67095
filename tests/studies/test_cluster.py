"""Sweeps on a Ray cluster: the same table, whatever becomes of its machines."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import tiny
from refashion.base.errors import UserError
from refashion.base.params.sweeps import SweepParams
from refashion.data.prepared import Split
from refashion.runs.run import TRIALS
from refashion.studies import cluster, executors, sweep, trials
from refashion.studies.executors import Execute
from refashion.studies.trials import Splits
from refashion.training.settings import Settings

SETTINGS = [Settings(hidden=(4,), epochs=2, batch_size=8, lr=0.1 * i) for i in range(1, 5)]
needs_ray = pytest.mark.skipif(
    not importlib.util.find_spec("ray"), reason="needs Ray: make environment EXTRAS=ray"
)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """Keep Ray away from clusters that run on this machine, and from the home folder."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        settings = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": folder, **cluster.ENVIRONMENT}
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def three_machines(environment: None) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(2):
        machines.add_node(num_cpus=1)
    yield machines
    machines.shutdown()


@pytest.fixture(scope="module")
def execute(three_machines: Any) -> Iterator[Execute]:
    """Who trains on the three machines; connected from the first use to the end."""
    with cluster.on_ray(three_machines.address) as execute:
        yield execute


def images(n: int = 40) -> Splits:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 784), dtype=np.uint8)
    split = Split(images=pixels, labels=np.arange(40, dtype=np.uint8) % 10)
    return {"train": Split(images=pixels[:n], labels=split.labels[:n]), "validation": split}


def trained(execute: Execute, data: Splits, device: str = "cpu") -> tuple[int, float, Any]:
    """Numbers of stacks and of epochs that were told, and the histories of the trials."""
    epochs, histories, stacks = 0.0, {}, 0

    def advance(amount: float = 1, note: str = "") -> None:
        nonlocal epochs
        epochs += amount

    for stack, results in execute(SETTINGS, data, device, advance):
        stacks += 1
        for settings, result in zip(stack, results, strict=True):
            histories[settings.lr] = trials.restore(settings, result).training.history
    return stacks, epochs, histories


def table_of(root: Path, execute: Execute) -> bytes:
    """The table of a sweep of twelve trials."""
    workspace = tiny.write_data(root, train=2000, validation=20, test=20)
    space = {"lr": [0.01, 0.1, 0.3, 0.5], "seed": {"range": [0, 3]}}
    swept = SweepParams(variant="dropout", space=space)
    params = tiny.params().model_copy(update={"epochs": 4, "sweeps": {"lr": swept}})
    sweep.run(workspace, params, "lr", execute)
    return (workspace.studies / "lr" / "dropout" / TRIALS).read_bytes()


# --- on this machine: first, while no cluster runs here that would be taken ---------------------


DRIVER = """
import dataclasses, sys
sys.path[:0] = {path}
import test_cluster
from refashion.studies import cluster

settings = [dataclasses.replace(s, epochs=10**6) for s in test_cluster.SETTINGS]
with cluster.on_ray("auto") as execute:
    told = lambda amount=1, note="": print("an epoch", flush=True)
    list(execute(settings, test_cluster.images(), "cpu", told))
"""


@needs_ray
@pytest.mark.ci
def test_nothing_is_left_running() -> None:
    """Of either of two clusters, each in a folder of its own."""
    here = Path(__file__).parent
    code = DRIVER.format(path=[str(here), str(here.parent)])
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        drivers = {
            how: subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | {"RAY_TMPDIR": folder},
                stdout=subprocess.PIPE,
                text=True,
            )
            for how, folder in ((signal.SIGINT, one), (signal.SIGTERM, other))
        }
        for how, driver in drivers.items():
            assert driver.stdout and driver.stdout.readline() == "an epoch\n"
            processes = psutil.Process(driver.pid).children(recursive=True)
            addresses = {
                connection.laddr.ip.removeprefix("::ffff:")
                for process in processes
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            }
            assert addresses == {"127.0.0.1"}
            driver.send_signal(how)
            driver.communicate()
            _, alive = psutil.wait_procs(processes, timeout=120)
            assert not alive


# --- without one ---------------------------------------------------------------------------------


def test_without_ray(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("REFASHION_RAY", "auto")
    with pytest.raises(UserError, match="Ray is not installed; run `make environment EXTRAS=ray`"):
        executors.chosen().__enter__()


def test_two_ways_at_once(monkeypatch) -> None:
    monkeypatch.setenv("REFASHION_RAY", "auto")
    monkeypatch.setenv("REFASHION_PROCESSES", "2")
    with pytest.raises(UserError, match="both set"):
        executors.chosen()


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1", "", "::", "ray://127.0.0.1:9"])
def test_an_address_that_does_not_answer(address: str) -> None:
    with (
        pytest.raises(UserError, match=r"^Ray at [^\n]*; give auto, or HOST:PORT [^\n]*$"),
        cluster.on_ray(address) as execute,
    ):
        trained(execute, images())


@needs_ray
def test_a_ray_that_cannot_start_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system takes no socket of a name so long."""
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    with (
        pytest.raises(UserError, match=r"^Ray at auto: [^\n]*; mend that, or sweep without --ray$"),
        cluster.on_ray("auto") as execute,
    ):
        trained(execute, images())


@needs_ray
def test_nothing_to_train_needs_no_cluster() -> None:
    with cluster.on_ray("127.0.0.1:9") as execute:
        assert not list(execute([], images(), "cpu", lambda amount=1, note="": None))


# --- on clusters ---------------------------------------------------------------------------------


@needs_ray
@pytest.mark.ci
def test_each_machine_takes_its_share_and_every_epoch_is_told(execute: Execute) -> None:
    expected = trained(executors.in_this_process, images())
    assert trained(execute, images()) == (2, *expected[1:])
    # once more, as TPE and halving ask for one batch of trials after another
    assert trained(execute, images())[1:] == expected[1:]


@needs_ray
@pytest.mark.ci
def test_a_mistake_in_a_worker_is_told_as_here(execute: Execute) -> None:
    with pytest.raises(UserError, match="training set: it is empty") as here:
        trained(executors.in_this_process, images(0))
    with pytest.raises(UserError) as there:
        trained(execute, images(0))
    assert str(there.value) == str(here.value)


@needs_ray
@pytest.mark.ci
def test_devices_of_the_cluster(three_machines: Any, execute: Execute) -> None:
    with pytest.raises(UserError, match="the Ray cluster has no GPU, and device is cuda"):
        trained(execute, images(), "cuda")
    machine = three_machines.add_node(num_cpus=1, num_gpus=1)
    three_machines.wait_for_nodes()
    assert trained(execute, images(), "auto")[0] == 1  # one GPU, one stack
    three_machines.remove_node(machine)


@needs_ray
@pytest.mark.ci
def test_the_table_is_the_same_if_machines_are_lost(
    three_machines: Any, execute: Execute, tmp_path: Path
) -> None:
    expected = table_of(tmp_path / "here", executors.in_this_process)
    lost = list(three_machines.worker_nodes)
    told: list[float] = []

    def losing(settings: Any, data: Splits, device: str, advance: Any) -> Any:
        def lose(amount: float = 1, note: str = "") -> None:
            told.append(amount)
            if lost:
                three_machines.remove_node(lost.pop(), allow_graceful=False)

        return execute(settings, data, device, lose)

    assert table_of(tmp_path / "there", losing) == expected
    assert not lost
    assert sum(told) == 12 * 4  # not twice, though trained twice
