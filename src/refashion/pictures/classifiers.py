"""Drawings of a classifier: its training, its predictions and its weights.

Each begins its heading with a title: which model on which data.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refashion.data.idx import SIDE
from refashion.pictures.figures import TRAIN, VALIDATION, WRONG, blank, heat_map, plain

COLUMNS = 9


def learning_curves(title: str, history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss and accuracy by epoch, from the columns of ``history.csv``.

    Columns of the validation set may be missing.
    """
    figure = blank(9.0, 3.8, f"{title}: learning curves")
    quantities = (("loss", "cross-entropy / nats per image"), ("accuracy", "accuracy"))
    for axes, (quantity, label) in zip(figure.subplots(1, 2), quantities, strict=True):
        for split, colour in (("train", TRAIN), ("validation", VALIDATION)):
            if values := history.get(f"{split}_{quantity}"):
                axes.plot(history["epoch"], values, color=colour, marker="o", ms=3.5, label=split)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
    return figure


def confusion_matrix(
    title: str, classes: Sequence[str], actual: Sequence[str], predicted: Sequence[str]
) -> Figure:
    """Count the test images by true and predicted class; colour: share of the true class."""
    answers = (pd.Categorical(names, classes) for names in (actual, predicted))
    counts = pd.crosstab(*answers, dropna=False).to_numpy()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    cells = {place: str(count) for place, count in np.ndenumerate(counts)}
    figure = blank(7.4, 6.4, f"{title}: confusion matrix on the test set")
    axes = figure.subplots()
    heat_map(axes, shares, cells, "share of the true class", cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    return figure


def calibration(title: str, bins: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy and number of images by confidence, from the rows of ``calibration.csv``.

    A reliability diagram (Guo et al. 2017, arXiv 1706.04599).
    """
    figure = blank(7.4, 6.4, f"{title}: calibration on the test set")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    names = ("low", "confidence", "accuracy", "images")
    low, confidence, accuracy, images = ([b[name] for b in bins] for name in names)
    width = [b["high"] - b["low"] for b in bins]
    above.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1, label="accuracy equals confidence")
    above.bar(low, accuracy, width, align="edge", color=TRAIN, alpha=0.35, edgecolor="white")
    above.plot(confidence, accuracy, "o", color=TRAIN, ms=4.5, label="images of one bin")
    above.vlines(confidence, confidence, accuracy, WRONG, lw=1.5, label="gap")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    below.bar(low, images, width, align="edge", color=TRAIN, edgecolor="white")
    below.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    plain(above, below)
    return figure


def predictions(
    title: str, images: np.ndarray, actual: Sequence[str], predicted: Sequence[str]
) -> Figure:
    """Show the first 18 test images, uint8 [n, 784], under both classes (d2l ``show_images``)."""
    answers = list(zip(actual, predicted, strict=True))[: 2 * COLUMNS]
    captions = [f"{a}\n{p}" for a, p in answers]
    wrong = [i for i, (a, p) in enumerate(answers) if a != p]
    head = f"{title}: the first test images, true class over predicted class"
    return _gallery(head, images[: len(answers)], captions, marked=wrong)


def confident_mistakes(
    title: str,
    images: np.ndarray,
    actual: Sequence[str],
    predicted: Sequence[str],
    confidence: Sequence[float],
) -> Figure | None:
    """Show the up to 18 wrong answers that the model was surest of; None if all are right.

    `confidence` is the probability of the predicted class; the other parameters are those of
    `predictions`.
    """
    wrong = [i for i, (a, p) in enumerate(zip(actual, predicted, strict=True)) if a != p]
    wrong = sorted(wrong, key=lambda i: (-confidence[i], i))[: 2 * COLUMNS]
    captions = [f"{actual[i]}\n{predicted[i]}\n{confidence[i]:.1%}" for i in wrong]
    head = f"{title}: most confident mistakes, true class over predicted class and confidence"
    return _gallery(head, images[wrong], captions) if wrong else None


def first_layer(title: str, weights: np.ndarray, classes: Sequence[str]) -> Figure:
    """Show the weights from the pixels to each unit of the first layer as an image.

    They are float32 [784, units]: of softmax regression, a template for each class; of a hidden
    layer, the 60 units of largest norm are shown.
    """
    units = weights.shape[1]
    if units == len(classes):
        tiles, captions, columns, what = weights.T, classes, 5, "one template a class"
    else:
        tiles = weights.T[np.argsort(-np.linalg.norm(weights, axis=0), kind="stable")[:60]]
        captions, columns = [""] * len(tiles), 12
        what = f"{len(tiles)} of {units} units, the largest first" if units > 60 else "all units"
    # A training may have diverged.
    largest = np.abs(tiles[np.isfinite(tiles)]).max(initial=1e-6)
    head, limits = f"{title}: first-layer weights, {what}", (-largest, largest)
    figure = _gallery(head, tiles, captions, columns, cmap="RdBu_r", limits=limits)
    figure.colorbar(figure.axes[0].images[0], label="weight", fraction=0.04, pad=0.02, aspect=30)
    return figure


def _gallery(
    title: str,
    tiles: np.ndarray,
    captions: Sequence[str],
    columns: int = COLUMNS,
    *,
    marked: Collection[int] = (),
    cmap: str = "gray_r",
    limits: tuple[float, float] = (0, 255),
) -> Figure:
    """Lay images out in rows, captions above; in one picture, for axes take long to draw."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = captions[0].count("\n") + 1 if captions[0] else 0
    inch, beside = (1.2, 2) if lines else (0.7, 1)
    above = round(lines * SIDE * 0.155 / inch) + 3  # pixels; a line of text is 0.155 inches high
    margins = (0, rows * columns - len(tiles)), (above, 0), (beside, beside)
    images = tiles.reshape(-1, SIDE, SIDE).astype(float)
    framed = np.pad(images, margins, constant_values=np.nan)
    _, height, width = framed.shape
    mosaic = np.block([list(framed[i : i + columns]) for i in range(0, len(framed), columns)])
    x_inches, y_inches = columns * width / SIDE * inch, rows * height / SIDE * inch
    figure = blank(max(x_inches, 7.0) + 0.8, y_inches + 0.5, title)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(mosaic, cmap=cmap).set_clim(*limits)
    for i, caption in enumerate(captions):
        row, column = divmod(i, columns)
        x, y = (column + 0.5) * width, row * height + above - 2.5
        text = axes.text(x, y, caption, ha="center", va="baseline", in_layout=False)
        text.set(color=WRONG if i in marked else "0.15", fontsize=8.5, linespacing=1.1)
    return figure
