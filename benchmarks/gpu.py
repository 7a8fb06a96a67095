"""Does a GPU give the CPU's bits, and how fast? ``make gpu``.

Needs torch and numpy alone, and some minutes:

self_test
    The self-test with int8 products, with float64 products, and with the faster of both.
variants
    Weights of the book's networks after an epoch, on the CPU and on the device.
large
    Layers, products, streams and functions of sizes for which a GPU has other kernels.
epochs
    Seconds per epoch of both engines, of the book's loop (``dataloader.py``) and of the raw
    float32 matrix products of an epoch (``limits.py``).
trainings
    Seconds of whole trainings, digests and all.
stacks
    Many small models at once: seconds, and whether each has the bits that it has alone.

Prints tables and writes everything to ``benchmarks/results/gpu-<device>.json``. The exit code is 0
if all bits are equal, 1 if not or if a part failed, 2 without such a device.
"""

import argparse
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import limits
import numpy as np
import torch
from contenders import settings
from dataloader import BookLoop, Images
from networks import BATCH_SIZE, NETWORKS
from torch import Tensor

from refashion import selftest
from refashion.base import files
from refashion.base.errors import UserError
from refashion.data import idx
from refashion.data.catalogue import FILES
from refashion.portable import exact, functions, multiply, softmax, streams
from refashion.training import device as devices
from refashion.training import digest, loop
from refashion.training.engine import Examples, on_device
from refashion.training.portable import CONTRACT
from refashion.training.settings import Settings
from serving import sha256

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
IMAGE_FOLDERS = (ROOT / "data" / "raw", ROOT.parent / "shared" / "data" / "fashion-mnist")
CPU = torch.device("cpu")
ENGINES = ("portable", "native")
IMAGES = 60_000
BOOK_SECONDS = 10.0
CHECKED = 3  # models of a stack that are trained alone too

SMALL = Settings(
    hidden=(64,),
    epochs=5,
    batch_size=32,
    weight_decay=0.01,
    num_inputs=100,
    num_outputs=1,
    initialisation="he",
    loss="squared",
)
"""One model of a stack."""


class Product(NamedTuple):
    """Operands of an exact product."""

    left: tuple[int, ...]
    """Shape in memory, before it is transposed."""

    right: tuple[int, ...]
    bits: int = 14
    pixels: bool = False
    """Whether the left operand is raw pixels."""

    transposed: bool = False
    """Whether the left operand is transposed, as for the gradient of weights."""

    def __str__(self) -> str:
        kind = "pixels" if self.pixels else f"{self.bits} bits"
        turned = ".mT" if self.transposed else ""
        return f"{kind} {list(self.left)}{turned} @ {list(self.right)}"


class Sizes(NamedTuple):
    """How much each part does."""

    instances: tuple[str, ...]
    """Instances of the self-test."""

    layers: tuple[tuple[int, ...], ...]
    """Hidden widths of large networks."""

    steps: int
    """Steps for which large networks are trained."""

    products: tuple[Product, ...]
    numbers: int
    """Numbers that each stream and function gives."""

    rounds: int
    """Epochs that are timed, after one to warm up."""

    epochs: int
    """Epochs of a whole training."""

    stacks: tuple[int, ...]
    """Models of each stack."""

    examples: int
    """Examples of each model of a stack."""


FULL = Sizes(
    instances=tuple(selftest.INSTANCES),
    layers=((1024,), (4096,), (1024, 4096)),
    steps=8,
    products=(
        Product((256, 784), (784, 4096), pixels=True),
        Product((60_000, 784), (784, 256), pixels=True),
        Product((60_000, 784), (60_000, 256), pixels=True, transposed=True),
        Product((256, 4096), (4096, 4096)),
        Product((4096, 256), (4096, 4096), transposed=True),
        Product((70_000, 64), (70_000, 64), transposed=True),
        Product((512, 10_000), (10_000, 512), bits=20),
        Product((16, 256, 1024), (16, 1024, 256), bits=20),
    ),
    numbers=1_000_000,
    rounds=5,
    epochs=10,
    stacks=(1, 16, 64, 256),
    examples=640,
)
QUICK = Sizes(
    instances=("softmax", "narrow"),
    layers=((48,),),
    steps=1,
    products=(
        Product((32, 784), (784, 16), pixels=True),
        Product((64, 32), (64, 16), transposed=True),
        Product((8, 5000), (5000, 8), bits=20),
        Product((2, 8, 64), (2, 64, 8), bits=20),
    ),
    numbers=10_000,
    rounds=1,
    epochs=2,
    stacks=(1, 4),
    examples=64,
)


def images(n: int) -> tuple[Examples, str]:
    """`n` images with labels, and where they come from: official ones where they lie, or made."""
    for folder in IMAGE_FOLDERS:
        paths = [folder / name for name in FILES["train"]]
        if all(path.exists() for path in paths):
            pixels, labels = idx.read_images(paths[0]), idx.read_labels(paths[1])
            inputs, targets = torch.tensor(pixels[:n]), torch.tensor(labels[:n].astype(np.int64))
            return Examples(inputs=inputs, targets=targets), "official"
    return selftest.examples(CPU, n=n), "made"


def uniform(shape: Sequence[int], seed: int) -> Tensor:
    """Numbers from -1 to 1, float32."""
    key = streams.key(seed, streams.Purpose.SELFTEST, 2)
    words = streams.bits(int(np.prod(shape)), key)
    return words.bitwise_right_shift_(40).to(torch.float32).mul_(2.0**-23).view(tuple(shape))


def multiplied(operands: Product, device: torch.device) -> str:
    """Digest of an exact product."""
    if operands.pixels:
        key = streams.key(0, streams.Purpose.SELFTEST)
        words = streams.bits(int(np.prod(operands.left)), key)
        left = exact.pixels(words.to(torch.uint8).view(operands.left).to(device))
    else:
        left = exact.quantise(uniform(operands.left, 0).to(device), operands.bits)
    right = exact.quantise(uniform(operands.right, 1).to(device), operands.bits)
    return sha256([exact.product(left.mT if operands.transposed else left, right)])


def elementwise(n: int) -> dict[str, Callable[[torch.device], str]]:
    """Digests of `n` numbers of each stream and function, by name."""
    key = streams.key(0, streams.Purpose.SELFTEST)
    numbers = uniform((n,), 0).to(torch.float64)
    logits = uniform((n // 10, 10), 1).to(torch.float64) * 30
    labels = torch.arange(n // 10) % 10
    positive = functions.exp(numbers * 700)
    return {
        "permutation": lambda d: sha256([streams.permutation(n, key, device=d)]),
        "bernoulli_rows": lambda d: sha256(
            [streams.bernoulli_rows((7, 7 + n // 1000), 1000, 0.5, key, device=d)]
        ),
        "normal": lambda d: sha256([streams.normal((n,), key, device=d)]),
        "exp": lambda d: sha256([functions.exp((numbers * 720).to(d))]),
        "log": lambda d: sha256([functions.log(positive.to(d))]),
        "sqrt": lambda d: sha256([functions.sqrt(positive.to(d))]),
        "cross_entropy": lambda d: sha256(
            (
                *softmax.cross_entropy(logits.to(d), labels.to(d), reduction="none"),
                *softmax.cross_entropy(logits.to(d), labels.to(d)),
            )
        ),
    }


class Bench:
    """All parts, on one device.

    Parameters
    ----------
    device
        To be held against the CPU.
    sizes
        How much is done.
    examples
        Images with labels.
    """

    def __init__(self, device: torch.device, sizes: Sizes, examples: Examples) -> None:
        self.device, self.sizes, self.examples = device, sizes, examples
        self.began = time.monotonic()
        self.unequal: list[str] = []

    def tell(self, line: str) -> None:
        """Print what has just been found."""
        print(f"{time.monotonic() - self.began:4.0f} s  {line}", flush=True)

    def seconds(self, work: Callable[[], object]) -> tuple[float, Any]:
        """The time that some work takes until the device has done it, and its result."""
        self._wait()
        tick = time.perf_counter()
        result = work()
        self._wait()
        return time.perf_counter() - tick, result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def compare(
        self, what: str, work: Callable[[torch.device], str], ways: Iterable[str] = ("auto",)
    ) -> dict[str, Any]:
        """Digests of the CPU and of the device, which multiplies in each of some ways."""
        digests, int8 = {"cpu": work(CPU)}, 0
        for way in ways:
            with multiply.products(way) as taken:
                digests[way] = work(self.device)
            int8 = max(int8, taken["int8"])
        equal = len(set(digests.values())) == 1
        self._note(what, equal)
        return {"what": what, "digests": digests, "int8_products": int8, "equal": equal}

    def _note(self, what: str, equal: bool) -> None:
        if not equal:
            self.unequal.append(what)
        self.tell(f"{what}: {verdict(equal)}")

    # --- the parts ----------------------------------------------------------------------------

    def self_test(self) -> list[dict[str, Any]]:
        """Every instance of the self-test, with products in each way."""
        rows = []
        for way in multiply.WAYS:
            with multiply.products(way) as taken:
                seconds, differences = self.seconds(self._differences)
            self._note(f"self-test, {way} products", not differences)
            for name, place in differences.items():
                self.tell(f"{name} differs: {place}")
            rows.append(
                {
                    "way": way,
                    "instances": len(self.sizes.instances),
                    "differences": differences,
                    "int8_products": taken["int8"],
                    "float64_products": taken["float64"],
                    "seconds": seconds,
                }
            )
        return rows

    def _differences(self) -> dict[str, str]:
        """First difference from the contract of each instance that has one."""
        differences = {name: selftest.check(name, self.device) for name in self.sizes.instances}
        return {name: place for name, place in differences.items() if place}

    def variants(self) -> list[dict[str, Any]]:
        """Weights of the book's networks after an epoch of all images."""
        return [
            self._compare_training(variant, settings(variant, "portable"), self.examples)
            for variant in NETWORKS
        ]

    def large(self) -> list[dict[str, Any]]:
        """Wide layers, and large products, streams and functions."""
        few = self.examples[: self.sizes.steps * BATCH_SIZE]
        rows = []
        for hidden in self.sizes.layers:
            wide = replace(
                settings("dropout", "portable"), hidden=hidden, dropout=(0.5,) * len(hidden)
            )
            title = f"hidden {list(hidden)}, {self.sizes.steps} steps"
            rows.append(self._compare_training(title, wide, few))
        for operands in self.sizes.products:
            work = partial(multiplied, operands)
            rows.append(self.compare(str(operands), work, ("int8", "float64")))
        for name, work in elementwise(self.sizes.numbers).items():
            rows.append(self.compare(f"{name}, {self.sizes.numbers:,} numbers", work))
        return rows

    def _compare_training(self, title: str, chosen: Settings, examples: Examples) -> dict[str, Any]:
        def work(device: torch.device) -> str:
            model = loop.start([chosen], device)
            model.train_epoch(on_device([examples], device), 1)
            return digest.weights(*model.weights())

        return self.compare(title, work, multiply.WAYS)

    def epochs(self) -> dict[str, dict[str, Any]]:
        """Seconds per epoch, by variant and contender."""
        by_variant: dict[str, dict[str, Any]] = {}
        (examples,) = on_device([self.examples], self.device)
        single = Images(self.examples.inputs, self.examples.targets)
        n = len(examples)
        for variant in NETWORKS:
            by_variant[variant] = rows = {}
            for numerics in ENGINES:
                model = loop.start([settings(variant, numerics)], self.device)
                work = partial(model.train_epoch, [examples])
                rows[numerics] = self._measure(f"{variant}, {numerics}", work)
            torch.use_deterministic_algorithms(False)  # what the native engine switches on
            raw = limits.products(variant, n, self.device)
            rows["products"] = self._measure(f"{variant}, products", lambda _, raw=raw: raw())
            book = BookLoop(variant, single, self.device, BOOK_SECONDS)
            rows["book"] = self._measure(
                f"{variant}, book", lambda _, b=book: b.train_epoch(), lambda b=book: b.share
            )
        return by_variant

    def _measure(
        self,
        what: str,
        train_epoch: Callable[[int], object],
        share: Callable[[], float] = lambda: 1.0,
    ) -> dict[str, Any]:
        """Times of epochs after the first; scaled, where an epoch had a share of its batches."""
        samples, shares = [], []
        for epoch in range(1, self.sizes.rounds + 2):
            seconds, _ = self.seconds(partial(train_epoch, epoch))
            shares.append(share())
            samples.append(seconds / shares[-1])
        row = {"samples": samples[1:], "median": median(samples[1:]), "share": min(shares[1:])}
        scaled = f" (scaled from {row['share']:.0%} of it)" if row["share"] < 1 else ""
        self.tell(f"{what}: {row['median']:.4f} s an epoch{scaled}")
        return row

    def trainings(self) -> dict[str, dict[str, Any]]:
        """Whole trainings, as the pipeline has them but for validation."""
        by_variant: dict[str, dict[str, Any]] = {}
        for variant in NETWORKS:
            by_variant[variant] = {}
            for numerics in ENGINES:
                chosen = settings(variant, numerics, self.sizes.epochs)
                work = partial(train, [chosen], [self.examples], self.device)
                seconds, (training,) = self.seconds(work)
                by_variant[variant][numerics] = {
                    "seconds": seconds,
                    "train_accuracy": training.history[-1].train_accuracy,
                    "weights_sha256": training.history[-1].weights_sha256,
                }
                self.tell(f"{variant}, {numerics}: {seconds:.2f} s for {self.sizes.epochs} epochs")
            torch.use_deterministic_algorithms(False)
        return by_variant

    def stacks(self) -> list[dict[str, Any]]:
        """Models in one stack, against one model and against themselves alone."""
        most = max(self.sizes.stacks)
        inputs = uniform((most, self.sizes.examples, SMALL.num_inputs), 0)
        targets = (2 * inputs[..., :1] - inputs[..., -1:] + 1).to(torch.float64)
        data = [Examples(inputs=x, targets=y) for x, y in zip(inputs, targets, strict=True)]
        models = [replace(SMALL, seed=seed) for seed in range(most)]
        rows: list[dict[str, Any]] = []
        for count in self.sizes.stacks:
            placed = on_device(data[:count], self.device)
            train([replace(s, epochs=1) for s in models[:count]], placed, self.device)
            work = partial(train, models[:count], placed, self.device)
            seconds, trainings = self.seconds(work)
            checked = sorted({round(i * (count - 1) / (CHECKED - 1)) for i in range(CHECKED)})
            alone = [
                _digests(train([models[i]], [data[i]], device))
                for device in (CPU, self.device)
                for i in checked
            ]
            stacked = _digests(trainings)
            equal = alone == [[stacked[i]] for i in checked] * 2
            first = rows[0] if rows else {"seconds": seconds}
            self._note(f"stack of {count}, {seconds:.2f} s, models {checked} alone", equal)
            rows.append(
                {
                    "models": count,
                    "seconds": seconds,
                    "ratio": seconds / first["seconds"],
                    "checked": checked,
                    "equal": equal,
                }
            )
        return rows


def train(
    chosen: Sequence[Settings], data: Sequence[Examples], device: torch.device
) -> list[loop.Training]:
    """Train models side by side, each on its own examples, without validation."""
    models = [
        loop.Model(settings=settings, train=examples, validation=examples[:0])
        for settings, examples in zip(chosen, data, strict=True)
    ]
    state = loop.State.start(models)
    for _ in loop.train(models, device=device.type, state=state):
        pass
    return state.trainings


def _digests(trainings: Iterable[loop.Training]) -> list[str]:
    return [training.digest for training in trainings]


PARTS = ("self_test", "variants", "large", "epochs", "trainings", "stacks")


def about(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    software = devices.software()
    facts = {
        "contract": CONTRACT,
        "device": devices.describe(device),
        "cpu": devices.describe(CPU),
        "cores": os.cpu_count(),
        "versions": {
            "cuda": torch.version.cuda,
            "numpy": np.__version__,
            **{name: software[name] for name in ("python", "torch")},
        },
        **{name: software[name] for name in ("cpu_capability", "threads")},
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["multiprocessors"] = properties.multi_processor_count
        facts["memory_gib"] = round(properties.total_memory / 2**30, 1)
    return facts


def measure(bench: Bench) -> dict[str, Any]:
    """Run all parts; where one fails, say so and go on with the next."""
    results: dict[str, Any] = {"failures": {}}
    for part in PARTS:
        bench.tell(f"--- {part} ---")
        try:
            results[part] = getattr(bench, part)()
        except Exception as error:
            traceback.print_exc()
            results["failures"][part] = f"{type(error).__name__}: {error}".partition("\n")[0]
            bench.tell(f"{part} FAILED: {results['failures'][part]}")
    return results | {"unequal": bench.unequal}


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows in columns, the first of which is aligned to the left."""
    cells = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for first, *others in cells:
        numbers = (cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))
        print("  ".join(["", first.ljust(widths[0]), *numbers]))


def verdict(equal: bool) -> str:
    """Result of a comparison in a word."""
    return "equal" if equal else "DIFFERENT"


def show(result: dict[str, Any]) -> None:
    """Print the tables of all parts that did not fail."""
    if rows := result.get("self_test"):
        counts = ("int8_products", "float64_products")
        cells = (
            [r["way"], verdict(not r["differences"]), *map(r.get, counts), f"{r['seconds']:.1f}"]
            for r in rows
        )
        table("Self-test", ("products", "bits", "int8", "float64", "seconds"), cells)
    for part, title in (("variants", "Weights after an epoch"), ("large", "Large sizes")):
        if rows := result.get(part):
            cells = (
                [r["what"], verdict(r["equal"]), r["int8_products"], r["digests"]["cpu"][:12]]
                for r in rows
            )
            header = ("what", "bits", "int8 products", "CPU's digest")
            table(f"{title}: the CPU's bits and the device's", header, cells)
    if by_variant := result.get("epochs"):
        contenders = next(iter(by_variant.values()))
        title = f"Seconds per epoch of {result['images']['number']:,} images, medians"
        cells = (
            [name, *(f"{rows[name]['median']:.4f}" for rows in by_variant.values())]
            for name in contenders
        )
        table(title, ("contender", *by_variant), cells)
        least = min(rows["book"]["share"] for rows in by_variant.values())
        if least < 1:
            print(f"  The book's are scaled from {least:.0%} of an epoch or more.")
    if by_variant := result.get("trainings"):
        cells = (
            [name, *(f"{rows[name]['seconds']:.2f}" for rows in by_variant.values())]
            for name in ENGINES
        )
        title = f"Seconds of {result['epochs_of_a_training']} epochs"
        table(title, ("engine", *by_variant), cells)
    if rows := result.get("stacks"):
        cells = (
            [r["models"], verdict(r["equal"]), f"{r['seconds']:.3f}", f"{r['ratio']:.2f}"]
            for r in rows
        )
        table("Stacks of small models", ("models", "bits", "seconds", "times one"), cells)


def main() -> int:
    """Measure, write and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Check and measure a GPU.")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--images", type=int, default=IMAGES, help="of an epoch [%(default)s]")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try this script")
    parser.add_argument("--output", type=Path, help="JSON [benchmarks/results/gpu-<device>.json]")
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error("--images must be at least 1")
    try:
        device = devices.resolve(arguments.device)
        examples, source = images(arguments.images)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # of 4 workers
    sizes = QUICK if arguments.quick else FULL
    bench = Bench(device, sizes, examples)
    result = about(device) | {
        "images": {"source": source, "number": len(examples)},
        "quick": arguments.quick,
        "epochs_of_a_training": sizes.epochs,
    }
    bench.tell(f"{result['device']}, torch {torch.__version__}, {len(examples):,} {source} images")
    result |= measure(bench)
    result["seconds"] = round(time.monotonic() - bench.began, 1)
    show(result)
    slug = re.sub(r"[^a-z0-9]+", "-", result["device"].lower()).strip("-")
    path = arguments.output or RESULTS / f"gpu-{slug}.json"
    files.write_json(path, result)
    print(f"\nwritten to {os.path.relpath(path)}")
    for what in (*result["unequal"], *result["failures"]):
        print(f"not as promised: {what}")
    return 1 if result["unequal"] or result["failures"] else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
