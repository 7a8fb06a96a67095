"""Does this machine keep the promise? ``python -m refashion.selftest [--device cuda]``.

Trains a small instance of every built-in variant on numbers it makes itself and compares the
weights after every step with those of the contract (``golden.json``). Needs torch and numpy alone;
takes seconds.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from refashion.errors import UserError
from refashion.portable import exact, streams
from refashion.training import device as devices
from refashion.training import digest, initial
from refashion.training.engine import Examples
from refashion.training.portable import CONTRACT, PortableEngine
from refashion.training.settings import NUM_CLASSES, NUM_INPUTS, Settings

GOLDEN = Path(__file__).with_name("golden.json")
NUM_EXAMPLES, BATCH_SIZE, EPOCHS = 640, 256, 2  # two whole batches and a half one

PLAIN = Settings(
    hidden=(),
    dropout=(),
    lr=0.1,
    seed=0,
    epochs=EPOCHS,
    batch_size=BATCH_SIZE,
    weight_decay=0.0,
    momentum=0.0,
    numerics="portable",
)
INSTANCES = {
    "softmax": PLAIN,
    "mlp": replace(PLAIN, hidden=(256,), dropout=(0.0,)),
    "dropout": replace(PLAIN, hidden=(256, 256), dropout=(0.2, 0.5), lr=0.5),
    "momentum": replace(PLAIN, hidden=(100,), dropout=(0.0,), momentum=0.9, weight_decay=0.001),
    "numbers": replace(
        PLAIN,
        hidden=(32,),
        dropout=(0.0,),
        lr=0.001,
        weight_decay=0.01,
        num_inputs=48,
        num_outputs=1,
        loss="squared",
        optimizer="adam",
    ),
}
Trace = list[list[str]]
"""Epoch, step and tensor of a state, then the first 16 digits of the tensor's digest."""


def examples(device: torch.device, loss: str = "cross_entropy") -> Examples:
    """Examples for a loss, from a stream of their own.

    Pixels and labels, where bright pixels betray the label; for squared errors features, and
    numbers that are the square of one feature.
    """
    if loss == "squared":
        key = streams.key(0, streams.Purpose.SELFTEST, 1)
        features = streams.normal((NUM_EXAMPLES, INSTANCES["numbers"].num_inputs), key)
        first = features[:, :1].to(device)
        return Examples(inputs=features.to(device, torch.float32), targets=first * first)
    key = streams.key(0, streams.Purpose.SELFTEST)
    numbers = streams.bits(NUM_EXAMPLES * (NUM_INPUTS + 1), key, device=device)
    numbers = numbers.view(NUM_EXAMPLES, NUM_INPUTS + 1)
    labels = (numbers[:, -1] >> 32).remainder(NUM_CLASSES)
    pixels = (numbers[:, :-1] >> 32).remainder(128)
    block = torch.arange(NUM_INPUTS, device=device) // (NUM_INPUTS // NUM_CLASSES)
    pixels = pixels + 100 * (block == labels[:, None])
    return Examples(inputs=pixels.to(torch.uint8), targets=labels)


def trace(settings: Settings, device: torch.device) -> Trace:
    """Train with `settings` and digest every tensor after every step."""
    engine = PortableEngine(settings, initial.weights(settings.widths, settings.seed), device)
    data, states = examples(device, settings.loss), []
    for epoch in range(1, settings.epochs + 1):

        def keep(step: int, epoch: int = epoch) -> None:
            for name, tensor in engine.weights().items():
                states.append([f"{epoch}", f"{step}", name, digest.weights({name: tensor})[:16]])

        fit = engine.train_epoch(data, epoch, keep)
        states.append([f"{epoch}", "end", "train_loss", fit.loss.hex()])
    return states


def difference(got: Trace, want: Trace) -> str | None:
    """Where two traces part first; nothing where they agree."""
    for (epoch, step, name, value), expected in zip(got, want, strict=True):
        if [epoch, step, name, value] != expected:
            return f"epoch {epoch}, step {step}, {name}: {value}, not {expected[-1]}"
    return None


def run(device: torch.device) -> bool:
    """Print one line for every variant and one on the machine; whether all agree."""
    golden = json.loads(GOLDEN.read_text())
    assert golden["contract"] == CONTRACT
    agree = True
    for name, settings in INSTANCES.items():
        got = trace(settings, device)
        parted = difference(got, golden["traces"][name])
        agree = agree and parted is None
        print(f"{name:<9} {'differs: ' + parted if parted else 'identical'}")
    software = devices.software()
    way = "int8" if exact.int8_wins(device) else "float64"
    print(
        f"{CONTRACT} on {devices.describe(device)} ({software['cpu_capability']}, "
        f"{software['threads']} threads), torch {software['torch']}, {device.type}, {way} products"
    )
    return agree


def main() -> int:
    """Return the exit code: 0 identical, 1 different, 2 no such device."""
    parser = argparse.ArgumentParser(prog="python -m refashion.selftest", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "cuda"])
    parser.add_argument(
        "--print-golden", action="store_true", help="print a new golden.json, to raise the contract"
    )
    arguments = parser.parse_args()
    try:
        device = devices.resolve(arguments.device)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.print_golden:
        traces = {name: trace(settings, device) for name, settings in INSTANCES.items()}
        rows = {k: "[\n" + ",\n".join(json.dumps(r) for r in v) + "\n]" for k, v in traces.items()}
        body = ",\n".join(f'"{name}": {text}' for name, text in rows.items())
        print(f'{{"contract": "{CONTRACT}", "traces": {{\n{body}\n}}}}')
        return 0
    return 0 if run(device) else 1


if __name__ == "__main__":
    sys.exit(main())
