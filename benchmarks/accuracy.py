"""Accuracy over seeds, in the book's setting: ``python benchmarks/accuracy.py [SEEDS]``.

All 60,000 training images, the test set as the validation set (as the book has it, so that its
curves can be drawn), both engines. Writes ``results/accuracy.json`` and the picture of the README,
``results/curves.png``.
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from contenders import NETWORKS, settings
from images import official
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy import stats

from refashion.base import files
from refashion.data import idx
from refashion.data.catalogue import FILES
from refashion.training import loop
from refashion.training.engine import Examples

RESULTS = Path(__file__).parent / "results"
ENGINES = ("portable", "native")
EPOCHS = 10
BOOK = {"softmax": 0.833, "mlp": 0.853, "dropout": 0.860}  # the book's loop, one seed
COLOURS = {"softmax": "#1f5fa8", "mlp": "#e0802b", "dropout": "#2f8f4e"}


def splits() -> dict[str, Examples]:
    """The official training and test sets."""
    raw = official(Path("build/bench"))
    return {
        split: Examples.of_images(idx.read_images(raw / images), idx.read_labels(raw / labels))
        for split, (images, labels) in FILES.items()
    }


def measure(seeds: int) -> dict[str, dict[str, list[list[dict]]]]:
    """Histories by variant, engine and seed."""
    data = splits()
    histories: dict[str, dict[str, list[list[dict]]]] = {
        v: {e: [] for e in ENGINES} for v in NETWORKS
    }
    for seed in range(seeds):
        for variant in NETWORKS:
            for engine in ENGINES:
                chosen = replace(settings(variant, engine, EPOCHS), seed=seed)
                model = loop.Model(settings=chosen, train=data["train"], validation=data["test"])
                rows = [asdict(row) for row, _ in loop.train([model], device="cpu")]
                histories[variant][engine].append(rows)
                last = rows[-1]["validation_accuracy"]
                print(f"seed {seed}  {variant:<8} {engine:<9} test accuracy {last:.4f}", flush=True)
    return histories


def summary(histories: dict[str, list[list[dict]]]) -> dict[str, object]:
    """Final accuracies of one variant: mean and deviation by engine, paired test between them."""
    final = {e: [h[-1]["validation_accuracy"] for h in histories[e]] for e in ENGINES}
    same = final["portable"] == final["native"]
    p = 1.0 if same else float(stats.ttest_rel(final["portable"], final["native"]).pvalue)
    return {
        **{
            engine: {
                "test_accuracy": values,
                "mean": float(np.mean(values)),
                "standard_deviation": float(np.std(values, ddof=1)),
                "train_loss": [h[-1]["train_loss"] for h in histories[engine]],
                "train_accuracy": [h[-1]["train_accuracy"] for h in histories[engine]],
            }
            for engine, values in final.items()
        },
        "paired_t_test_p": p,
    }


def draw(histories: dict[str, dict[str, list[list[dict]]]]) -> None:
    """Draw the portable engine's loss and accuracy by epoch: seeds thin, their mean bold."""
    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    panels = zip(
        figure.subplots(1, 2),
        ("train_loss", "validation_accuracy"),
        ("training loss / nats per image", "test accuracy"),
        strict=True,
    )
    for axes, column, label in panels:
        for variant, engines in histories.items():
            curves = np.array([[row[column] for row in h] for h in engines["portable"]])
            epochs = np.arange(1, curves.shape[1] + 1)
            axes.plot(epochs, curves.T, color=COLOURS[variant], linewidth=0.6, alpha=0.4)
            axes.plot(epochs, curves.mean(0), color=COLOURS[variant], linewidth=2, label=variant)
        axes.set(xlabel="epoch", ylabel=label, xticks=epochs)
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(bottom=0.7)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(RESULTS / "curves.png", dpi=110, metadata={"Software": None})


def main(seeds: int) -> None:
    """Measure, write and print."""
    histories = measure(seeds)
    result = {variant: summary(engines) for variant, engines in histories.items()}
    files.write_json(RESULTS / "accuracy.json", {"seeds": list(range(seeds)), "variants": result})
    draw(histories)
    table = Table("variant", *ENGINES, "paired p", "book, 1 seed", title="test accuracy")
    for variant, row in result.items():
        cells = [f"{row[e]['mean']:.4f} ± {row[e]['standard_deviation']:.4f}" for e in ENGINES]
        table.add_row(variant, *cells, f"{row['paired_t_test_p']:.2f}", f"{BOOK[variant]:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
