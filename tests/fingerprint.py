"""One line of JSON: hashes of what each engine computes in this process, and its machine.

`test_bits.py` runs it under many settings. The argument is the way of products: ``auto``, ``int8``
or ``float64``. Needs torch and numpy alone.
"""

import hashlib
import json
import platform
import sys
from dataclasses import replace
from typing import Any

import torch

from refashion import selftest
from refashion.portable import functions, multiply, softmax, streams
from refashion.training import device, loop, portable

CPU = torch.device("cpu")


def of_portable() -> tuple[str, bool]:
    """Hash of weights after every step, of logits and losses, functions and streams.

    And whether the weights are those of the self-test.
    """
    sha, identical = hashlib.sha256(), True
    golden = json.loads(selftest.GOLDEN.read_text())["traces"]
    for name, settings in selftest.INSTANCES.items():
        trace = selftest.trace(name, CPU)
        identical = identical and trace == golden[name]
        sha.update(json.dumps(trace).encode())
        data = selftest.examples(CPU, settings, selftest.NUM_EXAMPLES[name])
        engine = loop.start([replace(settings, seed=1)], CPU)
        (metrics,) = engine.evaluate([data])
        sha.update(f"{metrics.loss.hex()} {metrics.accuracy.hex()}".encode())
        sha.update(portable.outputs(*engine.weights(), data.inputs).numpy().tobytes())
    settings = selftest.INSTANCES["numbers"]
    data = selftest.examples(CPU, settings)
    several = [replace(settings, seed=seed, weight_decay=seed / 10) for seed in range(3)]
    models = [loop.Model(settings=s, train=data, validation=data) for s in several]
    for row, _ in loop.train(models, device="cpu"):
        if row.epoch == settings.epochs:
            sha.update(row.weights_sha256.encode())
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
    models = [loop.Model(settings=settings, train=data, validation=data)]
    return [row.weights_sha256 for row, _ in loop.train(models, device="cpu")][-1]


def of_process(way: str = "auto") -> dict[str, Any]:
    """Both hashes, with products in one way, and what they were computed on and by."""
    software = device.software()
    with multiply.products(way) as taken:
        portable_hash, identical = of_portable()
    return {
        "portable": portable_hash,
        "selftest": "identical" if identical else "different",
        "native": of_native(),
        "contract": portable.CONTRACT,
        "products": taken,
        "processor": device.describe(CPU),
        "architecture": platform.machine(),
        **{name: software[name] for name in ("cpu_capability", "threads", "torch", "python")},
    }


if __name__ == "__main__":
    print(json.dumps(of_process(*sys.argv[1:])))
