"""One line of JSON on what this process computes: a hash for each engine, and the machine.

Run by the tests of environments, each time in a process with other settings, and told which way
products are to take (``auto``, ``int8`` or ``float64``). Needs torch and numpy alone.
"""

import hashlib
import json
import platform
import sys
from dataclasses import replace

import torch

from refashion import selftest
from refashion.portable import functions, multiply, softmax, streams
from refashion.training import device, digest, initial, loop, portable
from refashion.training.native import NativeEngine
from refashion.training.portable import PortableEngine

CPU = torch.device("cpu")


def of_portable() -> tuple[str, bool]:
    """Hash of every weight after every step, of logits and losses, functions and streams.

    And whether the weights are those that the self-test expects.
    """
    sha, golden = hashlib.sha256(), json.loads(selftest.GOLDEN.read_text())["traces"]
    identical = True
    for name, settings in selftest.INSTANCES.items():
        n = selftest.NUM_EXAMPLES.get(name, selftest.MOST_EXAMPLES)
        trace = selftest.trace(settings, CPU, n)
        identical = identical and trace == golden[name]
        sha.update(json.dumps(trace).encode())
        data = selftest.examples(CPU, settings, n)
        begin = initial.weights(settings.widths, 1)
        fit = PortableEngine(settings, begin, CPU).fit(data)
        sha.update(f"{fit.loss.hex()} {fit.accuracy.hex()}".encode())
        sha.update(portable.outputs(begin, data.inputs).numpy().tobytes())
    settings = selftest.INSTANCES["numbers"]
    data = selftest.examples(CPU, settings)
    several = [replace(settings, seed=seed, weight_decay=seed / 10) for seed in range(3)]
    for training in loop.train_together(several, [(data, data)] * 3, device="cpu"):
        sha.update(digest.weights(training.weights).encode())
    x = streams.normal((10_007,), 1)
    target = torch.arange(1000) % 10
    loss, gradient = softmax.cross_entropy(x[:10_000].view(1000, 10) * 30, target)
    for values in (
        x,
        functions.exp(x * 100),
        functions.log(x.abs()),
        functions.sqrt(x.abs()),
        loss,
        gradient,
        streams.permutation(10_007, 2),
        streams.bernoulli_rows((3, 200), 77, 0.3, 3),
    ):
        sha.update(values.numpy().tobytes())
    return sha.hexdigest(), identical


def of_native() -> str:
    """Hash of the weights of a perceptron after two epochs."""
    settings = replace(selftest.INSTANCES["mlp"], numerics="native")
    data = selftest.examples(CPU)
    engine = NativeEngine(settings, initial.weights(settings.widths, settings.seed), CPU)
    for epoch in range(1, settings.epochs + 1):
        engine.train_epoch(data, epoch)
    return digest.weights(engine.weights())


if __name__ == "__main__":
    software = device.software()
    with multiply.products(sys.argv[1] if len(sys.argv) > 1 else "auto") as taken:
        found, identical = of_portable()
    print(
        json.dumps(
            {
                "portable": found,
                "selftest": "identical" if identical else "different",
                "native": of_native(),
                "contract": portable.CONTRACT,
                "products": taken,
                "processor": device.describe(CPU),
                "architecture": platform.machine(),
                "cpu_capability": software["cpu_capability"],
                "threads": software["threads"],
                "torch": software["torch"],
                "python": software["python"],
            }
        )
    )
