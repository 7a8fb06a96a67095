"""How fast the engines are: against the book's own loop and against the machine's limit.

One run, on the CPU, with all contenders side by side, each in a process of its own:

portable, native
    The engines of this project, on the 60,000 training images as uint8 in memory.
book
    The real package `d2l` (the last version with the loop that the book prints) in an environment
    of its own, without its pins, so that torch is the same: see ``book.py``.
products
    The raw float32 matrix products of an epoch, the physical limit: see ``contenders.py``.

They take turns, epoch by epoch, so that whatever else the machine does strikes them all alike.
The first round is a warm-up and is not counted. Then come single trainings, to see their memory
beside that of ``import torch`` and how time and memory grow with the number of images.

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
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Self

from rich.console import Console
from rich.table import Table

from refashion import files, paths

# Neither this process nor its imports may be large: on Linux, the peak memory of a new process
# starts at the present memory of the process that starts it.
HERE = Path(__file__).resolve().parent
BUILD = paths.ROOT / "build"
FOLDER = BUILD / "bench"
ENVIRONMENT = BUILD / "bench-venv"
D2L = "0.17.6"
EPOCHS = 11
VARIANTS = ("softmax", "mlp", "dropout")
ENGINES = ("portable", "native")
IMAGES = 60_000
SIZES = (6_000, 60_000, 600_000)
RATIOS = (
    ("book", "portable"),
    ("book", "native"),
    ("portable", "native"),
    ("portable", "products"),
    ("native", "products"),
)

Samples = dict[str, dict[str, list[float]]]
"""Seconds per epoch, by variant and contender."""


class NoBookError(Exception):
    """The book's loop cannot run here."""


class Contender:
    """A process that trains one epoch whenever it is asked to (``serving.py``)."""

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.about: dict[str, Any] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.terminate()
        self.process.wait()

    def epoch(self, variant: str) -> float:
        """Seconds of one epoch."""
        assert self.process.stdin
        self.process.stdin.write(f"{variant}\n")
        self.process.stdin.flush()
        seconds, _ = self._answer()
        return seconds

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"contender {self.name} ended: its own message is above")
        return json.loads(line)


def book_python() -> Path:
    """The interpreter of an environment with `d2l` and, beyond that, what is installed here.

    Raises
    ------
    NoBookError
        If the package cannot be had.
    """
    search = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    uv = shutil.which("uv", path=search)
    if not uv:
        raise NoBookError("uv, which installs it, is missing")
    python = ENVIRONMENT / "bin" / "python"
    install = (uv, "pip", "install", "--quiet", "--python", python)
    site = (python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    try:
        output(uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, ENVIRONMENT)
        output(*install, "--no-deps", f"d2l=={D2L}")
        output(*install, "ipython", "matplotlib-inline")  # of all it imports, what is not here
        own = Path(output(*site).strip())
        here = next(p for p in sys.path if Path(p).name == "site-packages")
        files.write_text(own / "refashion-bench.pth", f"{here}\n")
        output(python, "-c", "from d2l import torch")
    except subprocess.CalledProcessError as error:
        raise NoBookError(" ".join(error.stderr.split())) from error
    return python


def output(*command: str | Path) -> str:
    """What a command prints; its messages are kept for the error."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def contenders(stack: ExitStack, console: Console) -> dict[str, Contender]:
    """Start all contenders; the book's may be missing, and then it is said why."""
    script = (sys.executable, HERE / "contenders.py")

    def start(name: str, command: Sequence[str | Path], folder: Path) -> Contender:
        return stack.enter_context(Contender(name, command, folder))

    found = {n: start(n, (*script, n, FOLDER / str(IMAGES)), paths.ROOT) for n in ENGINES}
    try:
        command = (book_python(), HERE / "book.py", FOLDER / str(IMAGES))
        found["book"] = start("book", command, paths.ROOT)
        assert found["book"].about["torch"] == found["native"].about["torch"]
    except NoBookError as error:
        line = f"The book's own loop is left out: no package d2l {D2L} ({error})"
        console.print(line, soft_wrap=True, highlight=False)
    found["products"] = start("products", (*script, "products", FOLDER / str(IMAGES)), paths.ROOT)
    return found


def measure(contenders: dict[str, Contender], tell: Callable[[str], None]) -> Samples:
    """Let the contenders take turns, in a round that is not counted and EPOCHS that are."""
    samples: Samples = {v: {name: [] for name in contenders} for v in VARIANTS}
    for number in range(EPOCHS + 1):
        title = f"round {number} of {EPOCHS}" if number else "warm-up"
        for variant in VARIANTS:
            shown = []
            for name, contender in contenders.items():
                seconds = contender.epoch(variant)
                shown.append(f"{name} {seconds:.3f}")
                if number:
                    samples[variant][name].append(seconds)
            tell(f"{title:<14} {variant:<8} {'  '.join(shown)}")
    return samples


def trainings(sizes: Sequence[int], tell: Callable[[str], None]) -> dict[str, Any]:
    """Time and peak memory of single trainings, and of importing torch alone."""
    script = (sys.executable, HERE / "memory.py")
    base = json.loads(output(*script))["peak_mib"]
    tell(f"import torch alone: {base:.0f} MiB")
    rows: list[dict[str, Any]] = []
    for variant in VARIANTS:
        for engine in ENGINES:
            smallest = None
            for images in sizes if variant == "mlp" else (IMAGES,):
                found = output(*script, engine, variant, FOLDER / str(images))
                row = {"variant": variant, "engine": engine, "images": images, **json.loads(found)}
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


def summary(about: dict[str, Any], samples: Samples, memory: dict[str, Any]) -> dict[str, Any]:
    """All that is written to the file of results."""
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
        "versions": {
            **{name: engine[name] for name in ("python", "torch")},
            **{name: version(name) for name in ("numpy", "torchvision")},
            "d2l": D2L if "book" in about else None,
        },
        "images": IMAGES,
        "epochs": EPOCHS,
        "seconds_per_epoch": by_variant,
        "memory": memory,
    }


def ratios(medians: dict[str, float]) -> dict[str, float]:
    """How many times as long as the second contender the first one takes."""
    return {f"{a}/{b}": medians[a] / medians[b] for a, b in RATIOS if {a, b} <= medians.keys()}


def show(result: dict[str, Any], console: Console) -> None:
    """Print what was found."""
    names = (*ENGINES, "book", "products")
    table = Table(
        title="Seconds per epoch",
        caption=f"median, fastest to slowest of {result['epochs']}; the rest are ratios of medians",
    )
    table.add_column("variant")
    for name in (*names, *(f"{a} /\n{b}" for a, b in RATIOS)):
        table.add_column(name, justify="right")
    for variant, found in result["seconds_per_epoch"].items():
        cells = []
        for name in names:
            samples = found["samples"].get(name)
            cells.append(
                f"{median(samples):.3f}\n{min(samples):.3f}-{max(samples):.3f}" if samples else "-"
            )
        for a, b in RATIOS:
            ratio = found["ratios"].get(f"{a}/{b}")
            cells.append(f"{ratio:.2f}" if ratio else "-")
        table.add_row(variant, *cells, end_section=True)
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
    parser.add_argument("--skip-large", action="store_true", help="leave out 600,000 images")
    arguments = parser.parse_args()
    sizes = SIZES[:-1] if arguments.skip_large else SIZES

    console = Console()
    if not console.is_terminal:
        console.width = 132
    began = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{time.monotonic() - began:4.0f} s  {line}", highlight=False)

    tell("laying out the images")
    layout = (sys.executable, str(HERE / "images.py"), str(FOLDER), *map(str, sizes))
    if code := subprocess.run(layout).returncode:
        return code
    with ExitStack() as stack:
        found = contenders(stack, console)
        about = {name: contender.about for name, contender in found.items()}
        samples = measure(found, tell)
    memory = trainings(sizes, tell)
    shutil.rmtree(FOLDER / str(SIZES[-1]), ignore_errors=True)

    result = summary(about, samples, memory)
    show(result, console)
    slug = re.sub(r"[^a-z0-9]+", "-", result["cpu"].lower()).strip("-")
    path = HERE / "results" / f"bench-{slug}.json"
    files.write_json(path, result)
    tell(f"written to {path.relative_to(paths.ROOT)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        sys.exit(130)
    except subprocess.CalledProcessError as error:
        sys.exit(error.stderr)
