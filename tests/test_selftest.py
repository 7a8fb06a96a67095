"""The self-test: it passes here, it fails when anything moves, and it needs next to nothing."""

import json
import re
import sys
from collections.abc import Callable

import pytest
import torch

import alone
from refashion import selftest
from refashion.portable import multiply
from refashion.training import initial, portable
from refashion.training.initial import Weights
from refashion.training.settings import Settings

Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]
CPU = torch.device("cpu")
GOLDEN = json.loads(selftest.GOLDEN.read_text())
PLACES = [
    (variant, f"layers.{layer}.{kind}")
    for variant in ("softmax", "dropout", "numbers")
    for layer in range(len(selftest.INSTANCES[variant].hidden) + 1)
    for kind in ("weight", "bias")
]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with some arguments and give its exit code."""

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["selftest", *arguments])
        return selftest.main()

    return run


def nudge(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Move the largest weight of a tensor by one ulp; a bias, which is zero, by a weight's ulp."""
    start = initial.of

    def nudged(settings: Settings) -> Weights:
        weights = start(settings)
        flat = weights[name].view(-1)
        index = flat.abs().argmax()
        size = flat[index].abs().clamp(min=0.0625)  # a step may halve a weight's precision
        flat[index] += torch.nextafter(size, torch.tensor(torch.inf)) - size
        return weights

    monkeypatch.setattr(initial, "of", nudged)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances that take no time."""
    kept = ("softmax", "last_row", "single_rows", "narrow", "long_sum")
    monkeypatch.setattr(selftest, "INSTANCES", {k: selftest.INSTANCES[k] for k in kept})


def test_this_machine_keeps_the_promise(run: Run, capsys: Capture) -> None:
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:-1]] == [[v, "identical"] for v in selftest.INSTANCES]
    assert lines[-1].startswith("portable/2 on ") and torch.__version__ in lines[-1]


def test_both_ways_can_be_forced(
    run: Run, few: None, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--products", "float64") == 0
    assert "products: 0 int8, " in capsys.readouterr().out
    monkeypatch.setattr(multiply, "_ways", {})
    assert run("--products", "int8") == 0
    taken = re.search(r"products: (\d+) int8, (\d+) float64", capsys.readouterr().out)
    assert taken and int(taken[2]) > 0  # what has a single row or term
    with monkeypatch.context() as patch:
        patch.setattr(multiply, "_ways", {})
        patch.delattr(torch, "_int_mm")
        assert run("--products", "int8") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "products: 0 int8, " in lines[-2]
    assert lines[-1].startswith("No int8 product is exact here")


@pytest.mark.parametrize(("variant", "name"), PLACES)
def test_one_weight_moved_by_one_ulp_fails_the_gate(
    variant: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudge(monkeypatch, name)
    difference = selftest.check(variant, CPU)
    assert difference is not None and difference.startswith("epoch 1, step 1, layers.")


def test_a_mismatch_is_told_with_its_first_place(
    run: Run, few: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    nudge(monkeypatch, "layers.0.weight")
    assert run() == 1
    lines = capsys.readouterr().out.splitlines()
    want = GOLDEN["traces"]["softmax"][0][3]
    assert lines[0].startswith("softmax      differs: epoch 1, step 1, layers.0.weight: ")
    assert lines[0].endswith(f", not {want}")


def test_no_such_device(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run("--device", "cuda") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: device: cuda") and captured.err.count("\n") == 1
    assert not captured.out


def test_golden_is_what_print_golden_prints(
    run: Run, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = GOLDEN["traces"]  # which this machine gives, as the first test says
    monkeypatch.setattr(selftest, "trace", lambda name, device: traces[name])
    assert run("--print-golden") == 0
    assert capsys.readouterr().out == selftest.GOLDEN.read_text()


@pytest.mark.parametrize("place", [0, 3, -1])
def test_difference_names_the_place(place: int) -> None:
    want = GOLDEN["traces"]["mlp"]
    assert selftest.difference(want, want) is None
    got = [list(row) for row in want]
    got[place][3] = "0"
    epoch, step, name, value = want[place]
    message = f"epoch {epoch}, step {step}, {name}: 0, not {value}"
    assert selftest.difference(got, want) == message


def test_a_trace_of_another_length_is_no_match() -> None:
    want = GOLDEN["traces"]["mlp"]
    with pytest.raises(ValueError, match="zip"):
        selftest.difference(want[:-1], want)


def test_golden_covers_every_step_of_every_variant() -> None:
    assert set(GOLDEN["traces"]) == set(selftest.INSTANCES)
    for variant, settings in selftest.INSTANCES.items():
        tensors = 2 * (len(settings.hidden) + 1)
        steps = -(-selftest.NUM_EXAMPLES[variant] // settings.batch_size)
        rows = settings.epochs * (steps * tensors + 1) + 1 + tensors
        assert len(GOLDEN["traces"][variant]) == rows


def test_the_shapes_that_go_wrong_are_there() -> None:
    last_rows = {
        selftest.NUM_EXAMPLES[name] % settings.batch_size
        for name, settings in selftest.INSTANCES.items()
    }
    assert 1 in last_rows
    assert {s.hidden[0] for s in selftest.INSTANCES.values() if s.hidden} >= {8, 64, 4096}
    assert any(s.batch_size == 1 for s in selftest.INSTANCES.values())
    pieces = 2 ** (multiply.EXACT_FLOAT64 - 2 * portable.FEATURE_BITS)
    assert selftest.NUM_EXAMPLES["long_sum"] == pieces + 1


FIRST = """
from refashion import selftest
selftest.INSTANCES = {"softmax": selftest.INSTANCES["softmax"]}
sys.exit(selftest.main())
"""


def test_torch_and_numpy_are_all_it_needs() -> None:
    done = alone.run(FIRST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("softmax      identical\nportable/2 on ")
