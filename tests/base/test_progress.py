"""Progress: a bar on a terminal, a line an epoch in a log."""

import re
import subprocess
import sys

import pytest

from refashion.base.progress import progress

Capture = pytest.CaptureFixture[str]


def last_line(capsys: Capture) -> str:
    """What stands on the terminal at the end."""
    out, err = capsys.readouterr()
    assert out == ""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err).strip())[-1]


def test_a_log_has_a_line_for_every_epoch(capsys: Capture) -> None:
    with progress("mlp", 2, "epochs") as advance:
        advance(note="loss 0.431")
        advance()
    assert capsys.readouterr() == ("", "mlp: 1/2 epochs  loss 0.431\nmlp: 2/2 epochs\n")


@pytest.mark.parametrize(
    ("total", "unit", "lines"),
    [
        *((100, "epochs", 100), (101, "epochs", 10), (950, "epochs", 10), (None, "epochs", 0)),
        (200, "bytes", 0),
    ],
)
def test_a_log_stays_short(total: int | None, unit: str, lines: int, capsys: Capture) -> None:
    with progress("study", total, unit) as advance:
        for _ in range(total or 20):
            advance()
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", lines)
    assert not lines or err.endswith(f"\nstudy: {total}/{total} epochs\n")


@pytest.mark.parametrize("total", [10, 1000])
def test_what_was_done_before_is_not_told_again(total: int, capsys: Capture) -> None:
    with progress("mlp", total, "epochs", done=total * 0.7) as advance:
        for _ in range(3 * total // 10):
            advance()
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == f"mlp: {total}/{total} epochs" and len(told) == 3


def test_rich_is_imported_for_a_terminal_alone() -> None:
    code = (
        "import sys; from refashion.base.progress import progress\n"
        "with progress('x', 1, 'epochs') as advance: advance()\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.PIPE)


def test_epochs_with_a_note(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress("mlp [x]", 10, "epochs") as advance:
        for epoch in range(10):
            advance(note=f"loss [{epoch}]")
    last = last_line(capsys)
    assert last.startswith("mlp [x] ") and last.endswith(" 10/10 epochs 0:00:00 loss [9]")


def test_a_bar_begins_with_what_was_done_before(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with progress("mlp", 10, "epochs", done=7) as advance:
        advance()
    assert " 8/10 epochs " in last_line(capsys)


@pytest.mark.parametrize(("total", "shown"), [(4_000_000, "3.0/4.0 MB"), (None, "3.0/? MB")])
def test_bytes(
    total: int | None, shown: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("images.gz", total, "bytes") as advance:
        for _ in range(3):
            advance(1_000_000)
    last = last_line(capsys)
    assert "images.gz" in last and shown in last


def test_an_error_passes_through(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(KeyboardInterrupt), progress("mlp", None, "epochs") as advance:
        advance()
        raise KeyboardInterrupt
    assert "1/? epochs" in last_line(capsys)
