import pytest

from refashion.reporting.figures import calibration


def test_calibration_shows_every_bin() -> None:
    bins = [
        {"low": 0.4, "high": 0.6, "images": 10, "confidence": 0.52, "accuracy": 0.7},
        {"low": 0.8, "high": 1.0, "images": 30, "confidence": 0.97, "accuracy": 0.9},
    ]
    above, below = calibration("mlp", bins).axes
    points = above.lines[1]
    assert list(points.get_xdata()) == [0.52, 0.97]
    assert list(points.get_ydata()) == [0.7, 0.9]
    (gaps,) = above.collections
    assert [list(map(tuple, gap)) for gap in gaps.get_segments()] == [
        [(0.52, 0.52), (0.52, 0.7)],
        [(0.97, 0.97), (0.97, 0.9)],
    ]
    assert [bar.get_height() for bar in below.patches] == [10, 30]
    assert [bar.get_width() for bar in below.patches] == pytest.approx([0.2, 0.2])
    assert above.get_xlim() == below.get_xlim() == (0, 1)
