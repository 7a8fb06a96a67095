"""How fast the engines are: against peers and against the machine's limit.

One run, on the CPU, with all contenders side by side, each in a process of its own:

portable, native
    The engines of this project, on the 60,000 training images as uint8 in memory.
portable avx2, native avx2
    The same on processors without int8 dot products: oneDNN is told to use AVX2 at most.
plain
    The loop of a careful PyTorch user, with all images in memory: see ``plain.py``.
book
    The real package `d2l` (the last version with the loop that the book prints): see ``book.py``.
carbon
    Package `alia-carbon`, which promises bit-exact training too: see ``plain.py``. It trains on
    the first 20 batches alone, whose time is scaled to that of an epoch.
products
    The raw float32 matrix products of an epoch, the physical limit: see ``limits.py``.

They take turns, epoch by epoch, so that whatever else the machine does strikes them all alike.
The first round is a warm-up and is not counted. Then some of them train in processes with other
settings, to see how many different weights that makes. Last come single trainings, to see their
memory beside that of ``import torch`` and how time and memory grow with the number of images.

Prints tables and writes every sample to ``benchmarks/results/bench-<cpu>.json``.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, Self

from peers import MissingPackageError, Package, output, python
from rich.console import Console
from rich.table import Table

from refashion.base import files
from refashion.base.workspace import Workspace

# Neither this process nor its imports may be large: on Linux, the peak memory of a new process
# starts at the present memory of the process that starts it.
HERE = Path(__file__).resolve().parent
FOLDER = Workspace.here().root / "build" / "bench"
ROUNDS = 11
VARIANTS = ("softmax", "mlp", "dropout")
ENGINES = ("portable", "native")
IMAGES = 60_000
FEW_IMAGES = 5_120  # 20 batches
SIZES = (6_000, 60_000, 600_000)


class Entry(NamedTuple):
    """How a contender is started."""

    command: tuple[str, ...]
    """Script and its arguments; the folder of a split follows."""

    environment: Mapping[str, str] = {}
    package: Package | None = None
    """Package that is installed for it alone."""

    images: int = IMAGES
    """Images to train on; the time is scaled to that of all."""


NO_INT8 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
D2L = Package("d2l", "0.17.6", "d2l.torch", ("ipython", "matplotlib-inline"))
CARBON = Package("alia-carbon", "0.2.1", "carbon")
CONTENDERS = {
    "portable": Entry(("contenders.py", "portable")),
    "native": Entry(("contenders.py", "native")),
    "portable avx2": Entry(("contenders.py", "portable"), NO_INT8),
    "native avx2": Entry(("contenders.py", "native"), NO_INT8),
    "plain": Entry(("plain.py", "plain")),
    "book": Entry(("book.py",), package=D2L),
    "carbon": Entry(("plain.py", "carbon"), package=CARBON, images=FEW_IMAGES),
    "products": Entry(("contenders.py", "products")),
}
RATIOS = (
    ("portable", "native"),
    ("portable avx2", "native avx2"),
    ("portable", "plain"),
    ("book", "portable"),
    ("book", "native"),
    ("carbon", "portable"),
    ("portable", "products"),
    ("native", "products"),
)

HASHED = ("portable", "plain", "carbon")
HASHED_VARIANT = "mlp"
SETTINGS = (
    "OMP_NUM_THREADS=1",
    "OMP_NUM_THREADS=2",
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY=avx2",
    "MKL_CBWR=COMPATIBLE",
)
"""Settings that may differ between two machines, or two users of one."""

Samples = dict[str, dict[str, list[float]]]
"""Seconds per epoch, by variant and contender."""

Hashes = dict[str, dict[str, str]]
"""Hashes of the weights, by contender and setting."""

Tell = Callable[[str], None]
"""Prints a line of progress."""


class Contender:
    """A process that trains one epoch whenever it is asked to (``serving.py``)."""

    def __init__(
        self, name: str, interpreter: Path, images: int, setting: Mapping[str, str] = {}
    ) -> None:
        (script, *arguments), environment, *_ = CONTENDERS[name]
        self.name = name
        self.scale = IMAGES / images
        self.process = subprocess.Popen(
            (interpreter, HERE / script, *arguments, FOLDER / str(images)),
            env={**os.environ, **environment, **setting},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.about: dict[str, Any] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.wait()

    def epoch(self, variant: str) -> tuple[float, str]:
        """Seconds of one epoch of all images and the hash of the weights after it."""
        assert self.process.stdin
        self.process.stdin.write(f"{variant}\n")
        self.process.stdin.flush()
        seconds, sha256 = self._answer()
        return seconds * self.scale, sha256

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"contender {self.name} ended: its own message is above")
        return json.loads(line)


def interpreters(tell: Tell) -> dict[str, Path]:
    """Interpreter of each contender; says which are left out because a package is missing."""
    interpreters = {}
    for name, entry in CONTENDERS.items():
        try:
            interpreters[name] = python(entry.package) if entry.package else Path(sys.executable)
        except MissingPackageError as error:
            assert entry.package
            tell(f"{name} is left out: no {entry.package.name} {entry.package.version} ({error})")
    return interpreters


def measure(contenders: Mapping[str, Contender], rounds: int, tell: Tell) -> Samples:
    """Let the contenders take turns, in a round that is not counted and `rounds` that are."""
    samples: Samples = {v: {name: [] for name in contenders} for v in VARIANTS}
    tell(f"{'seconds of an epoch':<24}{'  '.join(f'{name:>5}' for name in contenders)}")
    for number in range(rounds + 1):
        title = f"round {number} of {rounds}" if number else "warm-up"
        for variant in VARIANTS:
            shown = []
            for name, contender in contenders.items():
                seconds, _ = contender.epoch(variant)
                shown.append(f"{seconds:{max(len(name), 5)}.3f}")
                if number:
                    samples[variant][name].append(seconds)
            tell(f"{title:<14}  {variant:<8}{'  '.join(shown)}")
    return samples


def hashes(interpreters: Mapping[str, Path], tell: Tell) -> Hashes:
    """What weights the same short training gives in processes with other settings."""
    by_contender: Hashes = {name: {} for name in HASHED if name in interpreters}
    for name, by_setting in by_contender.items():
        for setting in SETTINGS:
            environment = dict([setting.split("=")])
            with Contender(name, interpreters[name], FEW_IMAGES, environment) as contender:
                _, by_setting[setting] = contender.epoch(HASHED_VARIANT)
        different = len(set(by_setting.values()))
        tell(f"{name}: hashes of the weights in {len(SETTINGS)} settings: {different}")
    return by_contender


def trainings(sizes: Sequence[int], tell: Tell) -> dict[str, Any]:
    """Time and peak memory of single trainings, and of importing torch alone."""
    script = (sys.executable, HERE / "memory.py")
    base = json.loads(output(*script))["peak_mib"]
    tell(f"import torch alone: {base:.0f} MiB")
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        for engine in ENGINES:
            smallest = None
            for images in sizes if variant == "mlp" else (IMAGES,):
                usage = json.loads(output(*script, engine, variant, FOLDER / str(images)))
                row = {"variant": variant, "engine": engine, "images": images, **usage}
                row["above_import_torch_mib"] = row["peak_mib"] - base
                smallest = smallest or row
                if data := mib(images) - mib(smallest["images"]):
                    row["growth"] = (row["peak_mib"] - smallest["peak_mib"]) / data
                rows.append(row)
                tell(f"{engine:<8} {variant:<8} {images:>7,} images  {row['peak_mib']:.0f} MiB")
    return {"import_torch_mib": base, "trainings": rows}


def mib(images: int) -> float:
    """Size of so many images as uint8."""
    return images * 28 * 28 / 2**20


def summary(
    about: dict[str, Any], samples: Samples, hashes: Hashes, memory: dict[str, Any]
) -> dict[str, Any]:
    """Content of the file of results."""
    engine = about["portable"]
    by_variant = {}
    for variant, by_contender in samples.items():
        medians = {name: median(taken) for name, taken in by_contender.items()}
        by_variant[variant] = {
            "samples": by_contender,
            "medians": medians,
            "ratios": ratios(medians),
        }
    return {
        "cpu": engine["cpu"],
        "cores": os.cpu_count(),
        "threads": engine["threads"],
        "cpu_capability": engine["cpu_capability"],
        "products": {n: about[n]["products"] for n in about if n.startswith("portable")},
        "versions": {
            **{name: engine[name] for name in ("python", "torch")},
            **{name: version(name) for name in ("numpy", "torchvision")},
            **{
                entry.package.name: entry.package.version if name in about else None
                for name, entry in CONTENDERS.items()
                if entry.package
            },
        },
        "images": IMAGES,
        "scaled_from_images": {n: e.images for n, e in CONTENDERS.items() if e.images < IMAGES},
        "epochs": len(samples[VARIANTS[0]]["portable"]),
        "seconds_per_epoch": by_variant,
        "hashes": {
            "variant": HASHED_VARIANT,
            "images": FEW_IMAGES,
            "by_contender": hashes,
            "different": {
                name: len(set(by_setting.values())) for name, by_setting in hashes.items()
            },
        },
        "memory": memory,
    }


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """How many times as long as the second contender the first one takes."""
    return {f"{a}/{b}": medians[a] / medians[b] for a, b in RATIOS if {a, b} <= medians.keys()}


def show(result: dict[str, Any], console: Console) -> None:
    """Print the tables."""
    by_variant = result["seconds_per_epoch"].values()
    first, *_ = by_variant
    table = Table(
        title="Seconds per epoch",
        caption=f"median (fastest to slowest of {result['epochs']}); below, ratios of medians; "
        f"products of pixels: {', '.join(f'{n} {way}' for n, way in result['products'].items())}",
    )
    table.add_column("contender")
    for variant in result["seconds_per_epoch"]:
        table.add_column(variant, justify="right")
    for name in first["samples"]:
        samples = [row["samples"][name] for row in by_variant]
        table.add_row(name, *(f"{median(s):.3f} ({min(s):.3f}-{max(s):.3f})" for s in samples))
    table.add_section()
    for ratio in first["ratios"]:
        cells = (f"{row['ratios'][ratio]:.2f}" for row in by_variant)
        table.add_row(ratio.replace("/", " / "), *cells)
    console.print(table)

    hashes = result["hashes"]
    table = Table(
        title=f"Weights of the {hashes['variant']} after an epoch of {hashes['images']:,} images",
        caption="first digits of their SHA-256; last row: how many different ones",
    )
    table.add_column("setting")
    for name in hashes["by_contender"]:
        table.add_column(name, justify="right")
    for setting in SETTINGS:
        table.add_row(setting, *(row[setting][:12] for row in hashes["by_contender"].values()))
    table.add_section()
    table.add_row("different", *map(str, hashes["different"].values()))
    console.print(table)

    memory = result["memory"]
    table = Table(
        title="Single trainings",
        caption=f"`import torch` alone: {memory['import_torch_mib']:.0f} MiB; time: the second "
        "epoch; growth: of the peak, per byte of uint8 data beyond the smallest training",
    )
    for name in ("variant", "engine"):
        table.add_column(name)
    for name in ("images", "data MiB", "s/epoch", "us/image", "peak MiB", "above torch", "growth"):
        table.add_column(name, justify="right")
    for row in memory["trainings"]:
        table.add_row(
            row["variant"],
            row["engine"],
            f"{row['images']:,}",
            f"{mib(row['images']):.1f}",
            f"{row['seconds']:.3f}",
            f"{row['seconds'] / row['images'] * 1e6:.2f}",
            f"{row['peak_mib']:.0f}",
            f"{row['above_import_torch_mib']:.0f}",
            f"{row['growth']:.2f}" if "growth" in row else "-",
        )
    console.print(table)


def main() -> int:
    """Measure, print and write; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the speed of the engines.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="that are counted [%(default)s]")
    parser.add_argument("--skip-large", action="store_true", help="leave out 600,000 images")
    parser.add_argument("--output", type=Path, help="JSON [benchmarks/results/bench-<cpu>.json]")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    sizes = SIZES[:-1] if arguments.skip_large else SIZES

    console = Console()
    if not console.is_terminal:
        console.width = 132
    began = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {line}", soft_wrap=True, highlight=False)

    tell("laying out the images")
    layouts = map(str, (FEW_IMAGES, *sizes))
    layout = (sys.executable, str(HERE / "images.py"), str(FOLDER), *layouts)
    if code := subprocess.run(layout).returncode:
        return code
    by_name = interpreters(tell)
    with ExitStack() as stack:
        contenders = {
            name: stack.enter_context(Contender(name, interpreter, CONTENDERS[name].images))
            for name, interpreter in by_name.items()
        }
        about = {name: contender.about for name, contender in contenders.items()}
        assert len({software["torch"] for software in about.values()}) == 1
        samples = measure(contenders, arguments.rounds, tell)
    digests = hashes(by_name, tell)
    memory = trainings(sizes, tell)
    shutil.rmtree(FOLDER / str(SIZES[-1]), ignore_errors=True)

    result = summary(about, samples, digests, memory)
    show(result, console)
    slug = re.sub(r"[^a-z0-9]+", "-", result["cpu"].lower()).strip("-")
    path = arguments.output or HERE / "results" / f"bench-{slug}.json"
    files.write_json(path, result)
    tell(f"written to {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
