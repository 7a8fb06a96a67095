"""A picture of how far a model's confidence can be trusted."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from refashion.tracking.figures import TRAIN, WRONG, blank, plain


def calibration(title: str, bins: Sequence[Mapping[str, float]]) -> Figure:
    """Accuracy by confidence, and how many images have which (a reliability diagram).

    Parameters
    ----------
    title : str
        Which model on which data.
    bins : sequence of mappings
        The rows of ``calibration.csv``: ``low``, ``high``, ``images``, ``confidence`` and
        ``accuracy`` (Guo et al. 2017, arXiv 1706.04599).
    """
    figure = blank(7.4, 6.4, f"{title}: calibration on the test set")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    names = ("low", "confidence", "accuracy", "images")
    low, confidence, accuracy, images = ([b[name] for b in bins] for name in names)
    width = [b["high"] - b["low"] for b in bins]
    above.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1, label="as sure as right")
    above.bar(low, accuracy, width, align="edge", color=TRAIN, alpha=0.35, edgecolor="white")
    above.plot(confidence, accuracy, "o", color=TRAIN, ms=4.5, label="images of one bin")
    above.vlines(confidence, confidence, accuracy, WRONG, lw=1.5, label="gap")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    above.legend(frameon=False, loc="upper left")
    below.bar(low, images, width, align="edge", color=TRAIN, edgecolor="white")
    below.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    for axes in (above, below):
        plain(axes)
    return figure
