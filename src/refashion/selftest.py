"""Does this machine keep the promise? ``python -m refashion.selftest [--device cuda]``.

Trains small models on numbers it makes itself, the built-in variants and shapes that the pipeline
seldom meets, and compares the weights after every step with those of the contract
(``golden.json``). Needs torch and numpy alone; takes seconds.
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
from refashion.training.portable import CONTRACT, PortableEngine
from refashion.training.settings import NUM_CLASSES, NUM_INPUTS, Settings

GOLDEN = Path(__file__).with_name("golden.json")

PLAIN = Settings(
    hidden=(),
    dropout=(),
    lr=0.1,
    seed=0,
    epochs=2,
    batch_size=256,
    weight_decay=0.0,
    momentum=0.0,
    numerics="portable",
)
NUMBERS = replace(
    PLAIN,
    hidden=(32,),
    dropout=(0.0,),
    lr=0.001,
    weight_decay=0.01,
    num_inputs=48,
    num_outputs=1,
    loss="squared",
    optimizer="adam",
)


def _one_layer(width: int, *, batch_size: int, epochs: int = 1) -> Settings:
    return replace(PLAIN, hidden=(width,), dropout=(0.0,), batch_size=batch_size, epochs=epochs)


INSTANCES = {
    "softmax": PLAIN,
    "mlp": _one_layer(256, batch_size=256, epochs=2),
    "dropout": replace(PLAIN, hidden=(256, 256), dropout=(0.2, 0.5), lr=0.5),
    "momentum": replace(
        _one_layer(100, batch_size=256, epochs=2), momentum=0.9, weight_decay=0.001
    ),
    "numbers": NUMBERS,
    "last_row": _one_layer(64, batch_size=256),
    "single_rows": _one_layer(64, batch_size=1),
    "narrow": _one_layer(8, batch_size=64),
    "wide": _one_layer(4096, batch_size=64),
    "long_sum": replace(
        NUMBERS, hidden=(64,), num_inputs=72, batch_size=4097, epochs=1, optimizer="sgd"
    ),
}
"""Variants, then what they seldom meet: a last batch of one row, batches of one row, narrow and
wide layers, and a sum of more terms than are exact at once, whose last piece has one."""

NUM_EXAMPLES = {"last_row": 257, "single_rows": 3, "narrow": 150, "wide": 65, "long_sum": 4097}
MOST_EXAMPLES = 640  # of all other instances: two whole batches and a half one

Trace = list[list[str]]
"""Epoch, step and tensor of a state, then the first 16 digits of the tensor's digest."""


def examples(device: torch.device, settings: Settings = PLAIN, n: int = MOST_EXAMPLES) -> Examples:
    """`n` examples for a training with `settings`, from a stream of their own.

    Pixels and labels, where bright pixels betray the label; for squared errors features, and
    numbers that are the square of one feature.
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


def trace(settings: Settings, device: torch.device, n: int = MOST_EXAMPLES) -> Trace:
    """Train on `n` examples and digest every tensor after every step; then ask about one."""
    engine = PortableEngine(settings, initial.weights(settings.widths, settings.seed), device)
    data, states = examples(device, settings, n), []
    for epoch in range(1, settings.epochs + 1):

        def keep(step: int, epoch: int = epoch) -> None:
            for name, tensor in engine.weights().items():
                states.append([f"{epoch}", f"{step}", name, digest.weights({name: tensor})[:16]])

        fit = engine.train_epoch(data, epoch, keep)
        states.append([f"{epoch}", "end", "train_loss", fit.loss.hex()])
    one = Examples(inputs=data.inputs[:1], targets=data.targets[:1])
    states.append(["one", "example", "loss", engine.fit(one).loss.hex()])
    for name, gradient in engine.gradients(one).items():
        states.append(["one", "example", name, digest.weights({name: gradient})[:16]])
    return states


def _trace(name: str, device: torch.device) -> Trace:
    return trace(INSTANCES[name], device, NUM_EXAMPLES.get(name, MOST_EXAMPLES))


def difference(got: Trace, want: Trace) -> str | None:
    """Where two traces part first; nothing where they agree."""
    for (epoch, step, name, value), expected in zip(got, want, strict=True):
        if [epoch, step, name, value] != expected:
            return f"epoch {epoch}, step {step}, {name}: {value}, not {expected[-1]}"
    return None


def run(device: torch.device, way: str = "auto") -> bool:
    """Print one line for every instance and one on the machine; whether all agree."""
    golden = json.loads(GOLDEN.read_text())
    assert golden["contract"] == CONTRACT
    agree = True
    with multiply.products(way) as taken:
        for name in INSTANCES:
            parted = difference(_trace(name, device), golden["traces"][name])
            agree = agree and parted is None
            print(f"{name:<12} {'differs: ' + parted if parted else 'identical'}")
    software = devices.software()
    print(
        f"{CONTRACT} on {devices.describe(device)} ({software['cpu_capability']}, "
        f"{software['threads']} threads), torch {software['torch']}, {device.type}, products: "
        f"{taken['int8']} int8, {taken['float64']} float64"
    )
    if way == "int8" and not taken["int8"]:
        print("No int8 product is exact here, so that float64 was taken for all of them.")
    return agree


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
    traces = {name: _trace(name, device) for name in INSTANCES}
    rows = {k: "[\n" + ",\n".join(json.dumps(r) for r in v) + "\n]" for k, v in traces.items()}
    body = ",\n".join(f'"{name}": {text}' for name, text in rows.items())
    return f'{{"contract": "{CONTRACT}", "traces": {{\n{body}\n}}}}'


if __name__ == "__main__":
    sys.exit(main())
