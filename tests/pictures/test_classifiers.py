"""Pictures say what they show, whatever the numbers are."""

import struct

import numpy as np
import pytest
from matplotlib.figure import Figure

from refashion.pictures import classifiers, figures

CLASSES = [f"class {i}" for i in range(10)]
IMAGES = np.random.default_rng(0).integers(0, 255, (30, 784), np.uint8)
ACTUAL = CLASSES * 3
PREDICTED = [CLASSES[(i + (i > 20)) % 10] for i in range(30)]
CONFIDENCE = [i / 30 for i in range(30)]


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for axes in figure.axes for t in axes.texts if t.get_text()]


def test_learning_curves() -> None:
    history = {"epoch": [1.0, 2.0], "train_loss": [2.0, 1.0], "train_accuracy": [0.5, 0.6]}
    loss, accuracy = classifiers.learning_curves("mlp", history).axes
    assert loss.get_ylabel() == "cross-entropy / nats per image"
    assert [list(line.get_ydata()) for line in accuracy.lines] == [[0.5, 0.6]]
    validated = {**history, "validation_loss": [2.5, 2.0], "validation_accuracy": [0.4, 0.5]}
    legend = classifiers.learning_curves("mlp", validated).axes[0].get_legend()
    assert legend and [t.get_text() for t in legend.get_texts()] == ["train", "validation"]


def test_confusion_matrix_counts_every_image() -> None:
    axes = classifiers.confusion_matrix("mlp", CLASSES, ACTUAL, PREDICTED).axes[0]
    counts = np.array([int(t.get_text()) for t in axes.texts]).reshape(10, 10)
    assert (counts.sum(), counts[0, 0], counts[1, 2]) == (30, 3, 1)  # the last is image 21
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    seen = classifiers.confusion_matrix("mlp", CLASSES, CLASSES[:2], CLASSES[:2])
    assert sorted(map(int, texts(seen))) == [0] * 98 + [1] * 2


def test_predictions_are_titled_as_in_the_book() -> None:
    predicted = [CLASSES[1], *ACTUAL[1:]]
    figure = classifiers.predictions("mlp", IMAGES, ACTUAL, predicted)
    assert texts(figure)[:2] == ["class 0\nclass 1", "class 1\nclass 1"]
    colours = [t.get_color() for t in figure.axes[0].texts]
    assert len(colours) == 18 and colours.index(figures.WRONG) == 0
    assert colours.count(figures.WRONG) == 1
    few = classifiers.predictions("mlp", IMAGES[:5], ACTUAL[:5], predicted[:5])
    assert len(texts(few)) == 5


def test_most_confident_mistakes_come_first() -> None:
    figure = classifiers.confident_mistakes("mlp", IMAGES, ACTUAL, PREDICTED, CONFIDENCE)
    assert figure and len(texts(figure)) == 9
    assert texts(figure)[0] == "class 9\nclass 0\n96.7%"
    assert classifiers.confident_mistakes("mlp", IMAGES, ACTUAL, ACTUAL, CONFIDENCE) is None


@pytest.mark.parametrize("units", [1, 10, 40, 256])
def test_first_layer(units: int) -> None:
    weights = np.random.default_rng(0).normal(size=(784, units)).astype(np.float32)
    figure = classifiers.first_layer("mlp", weights, CLASSES)
    assert texts(figure) == (CLASSES if units == 10 else [])
    width, height = struct.unpack(">II", figures.png(figure)[16:24])
    assert 300 < width < 2000 and 50 < height < 1500


def test_weights_of_a_training_that_diverged() -> None:
    weights = np.full((784, 12), np.nan, np.float32)
    weights[0] = np.inf
    assert figures.png(classifiers.first_layer("mlp", weights, CLASSES))


def test_calibration_shows_every_bin() -> None:
    bins = [
        {"low": 0.4, "high": 0.6, "images": 10, "confidence": 0.52, "accuracy": 0.7},
        {"low": 0.8, "high": 1.0, "images": 30, "confidence": 0.97, "accuracy": 0.9},
    ]
    above, below = classifiers.calibration("mlp", bins).axes
    assert above.lines[1].get_xydata() == pytest.approx(np.array([[0.52, 0.7], [0.97, 0.9]]))
    gaps = np.array(above.collections[0].get_segments())
    assert gaps.tolist() == [[[0.52, 0.52], [0.52, 0.7]], [[0.97, 0.97], [0.97, 0.9]]]
    assert [bar.get_height() for bar in below.patches] == [10, 30]
    assert [bar.get_width() for bar in below.patches] == pytest.approx([0.2, 0.2])
    assert above.get_xlim() == below.get_xlim() == (0, 1)
