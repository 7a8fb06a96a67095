"""Drawings of a classifier: its training, its predictions and its weights.

Each begins its heading with a title: which model on which data.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from refashion.data.idx import SIDE
from refashion.pictures.figures import TRAIN, VALIDATION, WRONG, blank, plain

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
    position = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, ([position[a] for a in actual], [position[p] for p in predicted]), 1)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = blank(7.4, 6.4, f"{title}: confusion matrix on the test set")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if shares[i, j] > 0.55 else "0.75" if count == 0 else "0.15"
        axes.text(
            j, i, str(count), ha="center", va="center", fontsize=8.5, color=colour, in_layout=False
        )
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.tick_params(length=0)
    figure.colorbar(picture, label="share of the true class", shrink=0.8)
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
    return _gallery(head, images[: len(answers)], captions, marked=wrong)[0]


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
    if not wrong:
        return None
    captions = [f"{actual[i]}\n{predicted[i]}\n{confidence[i]:.1%}" for i in wrong]
    head = f"{title}: most confident mistakes, true class over predicted class and confidence"
    return _gallery(head, images[wrong], captions)[0]


def first_layer(title: str, weights: np.ndarray, classes: Sequence[str]) -> Figure:
    """Show the weights from the pixels to each unit of the first layer as an image.

    They are float32 [784, units]: of softmax regression, a template for each class; of a hidden
    layer, the 60 units of largest norm are shown.
    """
    units = weights.shape[1]
    if units == len(classes):
        tiles, captions, columns = weights.T, list(classes), 5
        what = "one template a class"
    else:
        tiles = weights.T[np.argsort(-np.linalg.norm(weights, axis=0), kind="stable")[:60]]
        captions, columns = [""] * len(tiles), 12
        what = f"{len(tiles)} of {units} units, the largest first" if units > 60 else "all units"
    finite = np.abs(tiles[np.isfinite(tiles)])  # a training may have diverged
    largest = finite.max(initial=1e-6)
    head, limits = f"{title}: first-layer weights, {what}", (-largest, largest)
    figure, picture = _gallery(head, tiles, captions, columns, cmap="RdBu_r", limits=limits)
    bar = figure.colorbar(picture, label="weight", fraction=0.04, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    return figure


def _gallery(
    title: str,
    tiles: Sequence[np.ndarray] | np.ndarray,
    captions: Sequence[str],
    columns: int = COLUMNS,
    *,
    cmap: str = "gray_r",
    limits: tuple[float, float] = (0, 255),
    marked: Collection[int] = (),
) -> tuple[Figure, AxesImage]:
    """Lay images out in rows, captions above; in one picture, for axes take long to draw."""
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    lines = captions[0].count("\n") + 1 if captions[0] else 0
    inch = 1.2 if lines else 0.7
    above = round(lines * SIDE * 0.155 / inch) + 3  # pixels; a line of text is 0.155 inches high
    beside = 4 if lines else 2
    mosaic = np.full((rows * (SIDE + above), columns * (SIDE + beside)), np.nan)
    width, height = (n / SIDE * inch for n in reversed(mosaic.shape))
    figure = blank(max(width, 7.0) + 0.8, height + 0.5, title)
    axes = figure.subplots()
    axes.set_axis_off()
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        top = i // columns * (SIDE + above) + above
        left = i % columns * (SIDE + beside) + beside // 2
        mosaic[top : top + SIDE, left : left + SIDE] = tile.reshape(SIDE, SIDE)
        axes.text(
            left + SIDE / 2,
            top - 2.5,
            caption,
            ha="center",
            va="baseline",
            fontsize=8.5,
            linespacing=1.1,
            color=WRONG if i in marked else "0.15",
            in_layout=False,
        )
    picture = axes.imshow(mosaic, cmap=cmap, vmin=limits[0], vmax=limits[1])
    return figure, picture
