"""The progress line: on a terminal alone."""

import io
import sys

import pytest

from refashion.training.loop import Epoch
from refashion.training.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def epoch(number: int) -> Epoch:
    return Epoch(
        epoch=number,
        train_loss=0.5,
        train_accuracy=0.75,
        validation_loss=0.6,
        validation_accuracy=0.7,
        weight_norm=1.0,
        weights_sha256="0" * 64,
    )


def test_one_line_that_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("mlp", 4, 1000) as progress:
        progress.show(epoch(1), 2.0)
        progress.show(epoch(2), 4.0)
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert text.count("\n") == 1 and text.count("\r") == 2
    assert "mlp  epoch 2/4  loss 0.500  accuracy 0.750 (validation 0.700)  250 images/s" in text
    assert "6 s left" in text


def test_nothing_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("mlp", 4, 1000) as progress:
        progress.show(epoch(1), 2.0)
    assert capsys.readouterr() == ("", "")
