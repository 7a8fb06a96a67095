"""What else happens in a process does not reach a portable training, or is refused."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from matrices import int_mm_of_cuda
from refashion import selftest
from refashion.base.errors import UserError
from refashion.portable import exact, fixed, multiply, streams
from refashion.training import digest, loop, portable
from refashion.training.engine import Examples
from refashion.training.loop import Model
from refashion.training.settings import Settings

CPU = torch.device("cpu")
SET_FLUSHING = torch.set_flush_denormal
SMALL = Settings(hidden=(32, 16), dropout=(0.2, 0.5), lr=0.5, batch_size=64, epochs=1)
SCRIPT = """
import torch
{before}
from refashion import selftest
from refashion.portable import multiply
kept = ("dropout", "momentum", "numbers", "last_row", "long_sum")
selftest.INSTANCES = {{k: selftest.INSTANCES[k] for k in kept}}
raise SystemExit(not selftest.run(torch.device("cpu"), "{way}"))
"""


def selftest_in_a_process(
    before: str, way: str, *options: str, threads: int = 1
) -> subprocess.CompletedProcess[str]:
    """Run five instances in another process."""
    return subprocess.run(
        [sys.executable, *options, "-c", SCRIPT.format(before=before, way=way)],
        env=os.environ | {"OMP_NUM_THREADS": f"{threads}", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("dtype", "way"), [("float64", "int8"), ("float16", "float64")])
def test_settings_of_the_process_do_not_reach_the_bits(dtype: str, way: str) -> None:
    before = (
        f"torch.set_default_dtype(torch.{dtype}); torch.use_deterministic_algorithms(True); "
        "torch.set_float32_matmul_precision('medium'); torch.manual_seed(1); "
        "torch.set_default_device('meta')"
    )
    process = selftest_in_a_process(before, way, "-O")
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("identical") == 5


def test_a_process_that_flushes_from_the_beginning() -> None:
    """Threads that begin now flush for good: the same bits or none, never others."""
    process = selftest_in_a_process("torch.set_flush_denormal(True)", "auto", threads=2)
    assert process.stdout.count("identical") == 5 or "flushes subnormal numbers" in process.stderr


# --- subnormal numbers ------------------------------------------------------------------------


@pytest.fixture
def flushing_at_the_end() -> Iterator[None]:
    """Another thread that began meanwhile would flush for good: there is none."""
    assert torch.get_num_threads() == 1
    yield
    SET_FLUSHING(False)


def test_flushing_that_is_switched_on_later_is_switched_off(flushing_at_the_end: None) -> None:
    data = selftest.examples(CPU, SMALL, 100)
    want, got = loop.start([SMALL], CPU), loop.start([SMALL], CPU)
    want.train_epoch([data], 1)
    torch.set_flush_denormal(True)
    got.train_epoch([data], 1)
    assert digest.weights(*got.weights()) == digest.weights(*want.weights())


@pytest.mark.parametrize(
    "way", ["train_epoch", "evaluate", "gradients", "outputs", "stack", "watched stack"]
)
def test_results_of_a_process_that_flushes_are_refused(
    way: str, monkeypatch: pytest.MonkeyPatch, flushing_at_the_end: None
) -> None:
    """A library that keeps the switch on, or turns it on while results are made."""
    data, trained = selftest.examples(CPU, SMALL, 100), loop.start([SMALL], CPU)
    models = loop.start([selftest.NUMBERS] * 2, CPU)
    numbers = [selftest.examples(CPU, selftest.NUMBERS, 100)] * 2
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)
    calls = {
        "train_epoch": lambda: trained.train_epoch([data], 1),
        "evaluate": lambda: trained.evaluate([data]),
        "gradients": lambda: trained.gradients(data),
        "outputs": lambda: portable.outputs(*trained.weights(), data.inputs),
        "stack": lambda: models.train_epoch(numbers, 1),
        "watched stack": lambda: models.evaluate(numbers),
    }
    calls[way]()
    SET_FLUSHING(True)
    with pytest.raises(UserError, match="flushes subnormal numbers to zero"):
        calls[way]()


def test_flushing_that_is_switched_on_in_mid_epoch_is_refused(flushing_at_the_end: None) -> None:
    trained = loop.start([SMALL], CPU)
    with pytest.raises(UserError, match="flushes"):
        trained.train_epoch(
            [selftest.examples(CPU, SMALL, 100)], 1, lambda step: torch.set_flush_denormal(True)
        )


def test_a_device_whose_products_round_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def inexact(device: torch.device) -> None:
        raise multiply.InexactError("float64 matrix products on cpu are not exact")

    trained = loop.start([SMALL], CPU)
    monkeypatch.setattr(portable, "require_exact_float64", inexact)
    with pytest.raises(UserError, match="not exact"):
        trained.train_epoch([selftest.examples(CPU, SMALL, 100)], 1)


# --- divergence -------------------------------------------------------------------------------


def test_an_infinite_bias_is_a_divergence() -> None:
    """Black images: no weight ever moves, and no loss tells."""
    settings = Settings(lr=3.4e38, momentum=0.9, batch_size=8, epochs=1)
    black = Examples(
        inputs=torch.zeros(16, 784, dtype=torch.uint8), targets=torch.zeros(16, dtype=torch.int64)
    )
    nothing = Examples(inputs=black.inputs[:0], targets=black.targets[:0])
    model = Model(settings=settings, train=black, validation=nothing)
    assert not list(loop.train([model], device="cpu"))


# --- a step that never asks -------------------------------------------------------------------


class NeverAsking(TorchDispatchMode):
    """Refuses what makes Python wait for a device: its numbers, and shapes that depend on them."""

    waits = ("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "unique", "masked_select")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.strip("_")
        if name in {wait.strip("_") for wait in self.waits}:
            raise AssertionError(f"a step waits for {func}")
        kwargs = kwargs or {}
        if name in ("to_copy", "to") and kwargs.get("device") is not None:
            raise AssertionError(f"a step moves numbers to {kwargs['device']}")
        return func(*args, **kwargs)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU taken for a device whose numbers are far."""
    monkeypatch.setattr(fixed, "on_host", lambda device: False)
    monkeypatch.setattr(multiply, "_ways", {})


def test_the_mode_can_see() -> None:
    with NeverAsking(), pytest.raises(AssertionError, match="waits"):
        exact.magnitude(torch.ones(2, 2))
    with NeverAsking(), pytest.raises(AssertionError, match="waits"):
        bool(torch.ones(1, dtype=torch.float32).any())


@pytest.mark.parametrize("way", ["int8", "float64"])
@pytest.mark.parametrize("name", ["softmax", "mlp", "dropout", "momentum", "numbers", "last_row"])
def test_a_step_never_waits_for_the_device(name: str, way: str, remote: None) -> None:
    """After a first epoch, in which products are tried and tables are made."""
    settings = replace(selftest.INSTANCES[name], epochs=1)
    data = selftest.examples(CPU, settings, min(selftest.NUM_EXAMPLES[name], 320))
    trained = loop.start([settings], CPU)
    refusing = NeverAsking()
    step = trained.step

    def watched(*arguments: Any) -> torch.Tensor:
        with refusing:
            return step(*arguments)

    with multiply.products(way):
        trained.train_epoch([data], 1)
        trained.step = watched  # type: ignore[method-assign]
        trained.train_epoch([data], 2)


@pytest.mark.parametrize("name", list(selftest.INSTANCES))
def test_grids_on_the_device_and_cudas_rules_give_the_same_bits(
    name: str, remote: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "_int_mm", int_mm_of_cuda)
    with multiply.products("int8"):
        assert selftest.check(name, CPU) is None


def test_lanes_of_another_byte_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the highest bits come first, they are read from behind."""
    want = streams.bernoulli_rows((3, 40), 10, 0.3, 7)
    words = streams.bits(37 * 3, 7, first=9).view(torch.int16).view(37, 3, 4)
    swapped = words.flip(-1).contiguous().view(torch.int64).flatten()
    monkeypatch.setattr(streams, "bits", lambda *arguments, **options: swapped)
    monkeypatch.setattr(sys, "byteorder", "big")
    assert torch.equal(streams.bernoulli_rows((3, 40), 10, 0.3, 7), want)
