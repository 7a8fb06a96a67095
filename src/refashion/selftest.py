"""Check that training has the same bits on this machine: ``python -m refashion.selftest``.

Trains small models, the built-in variants and shapes that the pipeline seldom meets, on data that
it generates, and compares the weights after every step with the contract's (``golden.json``). Needs
torch and numpy alone; takes seconds.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from refashion.base.errors import UserError
from refashion.portable import multiply, streams
from refashion.training import device as devices
from refashion.training import digest, initial
from refashion.training.engine import Examples
from refashion.training.initial import Weights
from refashion.training.portable import CONTRACT, PortableEngine
from refashion.training.settings import NUM_CLASSES, NUM_INPUTS, Settings

GOLDEN = Path(__file__).with_name("golden.json")

PLAIN = Settings(epochs=2)
NUMBERS = Settings(
    hidden=(32,),
    lr=0.001,
    epochs=2,
    weight_decay=0.01,
    num_inputs=48,
    num_outputs=1,
    loss="squared",
    optimizer="adam",
)
INSTANCES = {
    "softmax": PLAIN,
    "mlp": Settings(hidden=(256,), epochs=2),
    "dropout": Settings(hidden=(256, 256), dropout=(0.2, 0.5), lr=0.5, epochs=2),
    "momentum": Settings(hidden=(100,), momentum=0.9, weight_decay=0.001, epochs=2),
    "numbers": NUMBERS,
    "last_row": Settings(hidden=(64,), epochs=1),
    "single_rows": Settings(hidden=(64,), batch_size=1, epochs=1),
    "narrow": Settings(hidden=(8,), batch_size=64, epochs=1),
    "wide": Settings(hidden=(4096,), batch_size=64, epochs=1),
    "long_sum": replace(
        NUMBERS, hidden=(64,), num_inputs=72, batch_size=4097, epochs=1, optimizer="sgd"
    ),
}
"""Variants, then shapes they seldom meet: a last batch of one row, batches of one row, narrow and
wide layers, and a sum of more terms than are exact at once, whose last piece has one term."""

DEFAULT_EXAMPLES = 640  # two whole batches and a half one
NUM_EXAMPLES = dict.fromkeys(INSTANCES, DEFAULT_EXAMPLES)
NUM_EXAMPLES |= {"last_row": 257, "single_rows": 3, "narrow": 150, "wide": 65, "long_sum": 4097}

Trace = list[list[str]]
"""Epoch, step and tensor of a state, then the first 16 digits of the tensor's digest."""


def examples(
    device: torch.device, settings: Settings = PLAIN, n: int = DEFAULT_EXAMPLES
) -> Examples:
    """Generate `n` examples for a training with `settings`.

    Pixels, of which bright ones show the label; for squared errors features, whose target is the
    square of the first.
    """
    if settings.loss == "squared":
        key = streams.key(0, streams.Purpose.SELFTEST, 1)
        features = streams.normal((n, settings.num_inputs), key)
        first = features[:, :1].to(device)
        return Examples(inputs=features.to(device, torch.float32), targets=first * first)
    key = streams.key(0, streams.Purpose.SELFTEST)
    numbers = streams.bits(n * (NUM_INPUTS + 1), key, device=device).view(n, NUM_INPUTS + 1)
    labels = (numbers[:, -1] >> 32).remainder(NUM_CLASSES)
    pixels = (numbers[:, :-1] >> 32).remainder(128)
    block = torch.arange(NUM_INPUTS, device=device) // (NUM_INPUTS // NUM_CLASSES)
    pixels = pixels + 100 * (block == labels[:, None])
    return Examples(inputs=pixels.to(torch.uint8), targets=labels)


def trace(name: str, device: torch.device) -> Trace:
    """Train an instance and digest every tensor after every step; then one example's gradients."""
    settings = INSTANCES[name]
    engine = PortableEngine([settings], [initial.of(settings)], device)
    data = examples(device, settings, NUM_EXAMPLES[name])
    states: Trace = []

    def keep(step: int) -> None:
        states.extend(_rows(f"{epoch}", f"{step}", *engine.weights()))

    for epoch in range(1, settings.epochs + 1):
        (metrics,) = engine.train_epoch([data], epoch, keep)
        states.append([f"{epoch}", "end", "train_loss", metrics.loss.hex()])
    one = data[:1]
    (metrics,) = engine.evaluate([one])
    states.append(["one", "example", "loss", metrics.loss.hex()])
    return states + _rows("one", "example", engine.gradients(one))


def _rows(epoch: str, step: str, tensors: Weights) -> Trace:
    return [[epoch, step, k, digest.weights({k: w})[:16]] for k, w in tensors.items()]


def difference(got: Trace, want: Trace) -> str | None:
    """First difference of two traces; None where they agree."""
    for row, expected in zip(got, want, strict=True):
        if row != expected:
            epoch, step, name, value = row
            return f"epoch {epoch}, step {step}, {name}: {value}, not {expected[-1]}"
    return None


def check(name: str, device: torch.device) -> str | None:
    """First difference of an instance's trace from the contract's; None where they agree."""
    return difference(trace(name, device), json.loads(GOLDEN.read_text())["traces"][name])


def run(device: torch.device, way: str = "auto") -> bool:
    """Print one line for every instance and one on the machine; true if all are identical."""
    identical = True
    with multiply.products(way) as taken:
        for name in INSTANCES:
            found = check(name, device)
            identical = identical and found is None
            print(f"{name:<12} {f'differs: {found}' if found else 'identical'}")
    software = devices.software()
    print(
        f"{CONTRACT} on {devices.describe(device)} ({software['cpu_capability']}, "
        f"{software['threads']} threads), torch {software['torch']}, {device.type}, products: "
        f"{taken['int8']} int8, {taken['float64']} float64"
    )
    if way == "int8" and not taken["int8"]:
        print("No int8 product is exact here, so all were computed in float64.")
    return identical


def main() -> int:
    """Return the exit code: 0 identical, 1 different, 2 no such device."""
    parser = argparse.ArgumentParser(prog="python -m refashion.selftest", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--products",
        default="auto",
        choices=multiply.WAYS,
        help="how matrices are multiplied: int8 wherever that is exact, float64, or the faster one",
    )
    parser.add_argument(
        "--print-golden", action="store_true", help="print a new golden.json, to raise the contract"
    )
    arguments = parser.parse_args()
    try:
        device = devices.resolve(arguments.device)
        if arguments.print_golden:
            print(_golden(device))
            return 0
        return 0 if run(device, arguments.products) else 1
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _golden(device: torch.device) -> str:
    traces = {name: trace(name, device) for name in INSTANCES}
    rows = {k: "[\n" + ",\n".join(json.dumps(r) for r in v) + "\n]" for k, v in traces.items()}
    body = ",\n".join(f'"{name}": {text}' for name, text in rows.items())
    return f'{{"contract": "{CONTRACT}", "traces": {{\n{body}\n}}}}'


if __name__ == "__main__":
    sys.exit(main())
