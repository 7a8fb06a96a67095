"""Checkpoints: what one holds is all that a training needs, and nothing unsound is ever used."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import oracles
from refashion import selftest
from refashion.base.errors import UserError
from refashion.runs.checkpoint import KEPT, VARIABLE, Checkpoint
from refashion.training import loop
from refashion.training.loop import Model, State, Training
from refashion.training.settings import Settings

KEY = "a" * 64
IMAGES = selftest.examples(torch.device("cpu"))
PLAIN = Settings(hidden=(6,), batch_size=32, epochs=3, lr=0.3)
NUMBERS = Settings(num_inputs=5, num_outputs=1, hidden=(4,), loss="squared", batch_size=8, epochs=3)
LONG = replace(PLAIN, epochs=6)
WILD = replace(LONG, lr=1.0, weight_decay=100.0)  # grows by two digits a step
NATIVE = replace(PLAIN, numerics="native")
OBSERVED = {"rows": [[0.1, 1e-320, -0.0, 2.0**1000, float("inf"), float("nan")]], "started": "ä\n"}


def model(settings: Settings, first: int = 0) -> Model:
    if settings.loss == "squared":
        n, m = (oracles.numbers(settings, size, first) for size in (20, 6))
        return Model(settings=settings, train=n, validation=m)
    return Model(settings=settings, train=IMAGES[first : first + 100], validation=IMAGES[200:230])


def shared(*settings: Settings) -> list[Model]:
    first = model(settings[0])
    return [replace(first, settings=s) for s in settings]


CASES = {
    "softmax": [model(replace(PLAIN, hidden=(), dropout=()))],
    "one epoch": [model(replace(PLAIN, epochs=1))],
    "decay": [model(replace(PLAIN, weight_decay=0.1))],
    "momentum": [model(replace(PLAIN, momentum=0.9))],
    "dropout": [model(replace(PLAIN, dropout=(0.4,)))],
    "adam": [model(replace(NUMBERS, optimizer="adam", lr=0.01))],
    "not watched": [replace(model(PLAIN), validation=IMAGES[:0])],
    "native": [model(NATIVE)],
    "native momentum": [model(replace(NATIVE, momentum=0.9, dropout=(0.5,)))],
    "native adam": [model(replace(NUMBERS, optimizer="adam", lr=0.01, numerics="native"))],
    "stack": [model(replace(PLAIN, seed=s, momentum=0.3 * s), 10 * s) for s in range(3)],
    "stack of adam": [model(replace(NUMBERS, optimizer="adam", seed=s), s) for s in range(3)],
    "one diverges": shared(LONG, WILD, replace(LONG, lr=0.2)),
    "all diverge": shared(WILD, replace(WILD, weight_decay=1e4)),
    "several stacks": [
        *shared(WILD, replace(WILD, lr=0.9)),
        model(replace(NATIVE, epochs=2)),
        *(model(replace(PLAIN, seed=s, epochs=2)) for s in (1, 2)),
    ],
}
DIVERGING = {"one diverges", "all diverge", "several stacks"}


def bits(trainings: Sequence[Training]) -> list[object]:
    """Whole rows as text, since NaN is not equal to itself, and every weight."""
    weights = [{n: w.numpy().tobytes() for n, w in t.weights.items()} for t in trainings]
    return [[repr(t.history) for t in trainings], weights]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """One that is written at the end of every epoch."""
    monkeypatch.setenv(VARIABLE, "0")
    return Checkpoint(tmp_path, KEY)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, bytes]:
    """A checkpoint, and its content after the first epoch of a small model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "0")
        checkpoint = Checkpoint(tmp_path_factory.mktemp("small"), KEY)
    return checkpoint, next(contents(CASES["softmax"], checkpoint))


def contents(models: Sequence[Model], checkpoint: Checkpoint) -> Iterator[bytes]:
    """Train models and give the file after every epoch of every stack."""
    files = []

    def save(state: State) -> None:
        checkpoint.save(state, OBSERVED)
        files.append(checkpoint.file.read_bytes())

    for _ in loop.train(models, device="cpu", save=save):
        yield from files
        files.clear()
    yield from files


def resumed(models: Sequence[Model], checkpoint: Checkpoint) -> State:
    state = State.start(models)
    observed = checkpoint.load(state)
    assert repr(observed) == repr(OBSERVED)
    return state


@pytest.mark.parametrize("case", CASES)
def test_a_training_goes_on_from_any_epoch_with_the_same_bits(
    case: str, checkpoint: Checkpoint
) -> None:
    models = CASES[case]
    whole = oracles.train(*models)
    assert any(training.diverged for training in whole) == (case in DIVERGING)
    saved = 0
    for content in contents(models, checkpoint):
        now = checkpoint.file.read_bytes()
        checkpoint.file.write_bytes(content)
        state = resumed(models, checkpoint)
        before = [len(t.history) for t in state.trainings]
        rows = [row for row, _ in loop.train(models, device="cpu", state=state)]
        assert bits(state.trainings) == bits(whole)
        assert len(rows) + sum(before) == sum(len(t.history) for t in state.trainings)
        checkpoint.file.write_bytes(now)
        saved += 1
    epochs = [len(training.history) for training in whole]
    assert saved == (max(epochs[:2]) + 2 + 2 if case == "several stacks" else max(epochs))


@given(st.data())
def test_no_altered_byte_stays_unseen(small: tuple[Checkpoint, bytes], data: st.DataObject) -> None:
    """Cut, longer, or with another byte: told in one line, and the start is as it was."""
    models, (checkpoint, sound) = CASES["softmax"], small
    content = bytearray(sound)
    place = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["cut", "longer", "other", "swapped"])):
        case "cut":
            del content[place:]
        case "longer":
            content[place:place] = data.draw(st.binary(min_size=1, max_size=9))
        case "other":
            content[place] ^= data.draw(st.integers(1, 255))
        case _:
            content = content[place:] + content[:place] if place else content[:-1]
    checkpoint.file.write_bytes(content)
    state, start = State.start(models), State.start(models)
    assert checkpoint.load(state) is None
    assert bits(state.trainings) == bits(start.trainings) and state.epoch == 0


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n", b"\xff" * 99, b"{}", b"0" * 64 + b"\n"])
def test_a_file_of_anything_is_told_in_one_line(
    content: bytes, checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint.file.write_bytes(content)
    assert checkpoint.load(State.start(CASES["stack"])) is None
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"warning: {checkpoint.file}: is damaged, or of another training; this one starts anew"
    ]


def test_a_checkpoint_of_another_training_is_not_used(
    checkpoint: Checkpoint, small: tuple[Checkpoint, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    other = Checkpoint(checkpoint.file.parent, "b" * 64)
    other.file.write_bytes(small[1])
    assert other.load(State.start(CASES["softmax"])) is None
    assert "of another training" in capsys.readouterr().err
    same_name = Checkpoint(checkpoint.file.parent, KEY[:16] + "b" * 48)
    assert same_name.file == checkpoint.file
    assert same_name.load(State.start(CASES["softmax"])) is None


def test_a_folder_in_its_place_stops_nothing(
    checkpoint: Checkpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be read or written is told; the training goes on."""
    checkpoint.file.mkdir(parents=True)
    state = State.start(CASES["softmax"])
    assert checkpoint.load(state) is None
    checkpoint.save(state, OBSERVED)
    read, written = capsys.readouterr().err.splitlines()
    assert "cannot be read (Is a directory); the training starts anew" in read
    assert "cannot be written (Is a directory); the training goes on" in written


def test_it_is_deleted_when_all_went_well_and_only_then(checkpoint: Checkpoint) -> None:
    checkpoint.file.write_bytes(b"mine")
    with pytest.raises(KeyboardInterrupt), checkpoint:
        raise KeyboardInterrupt
    assert checkpoint.file.read_bytes() == b"mine"
    with checkpoint:
        pass
    assert not list(checkpoint.file.parent.iterdir())
    with checkpoint:  # nothing was saved
        pass


def test_those_of_other_trainings_do_not_pile_up(tmp_path: Path) -> None:
    for i in range(2 * KEPT):
        Checkpoint(tmp_path, f"{i:064x}"[::-1]).file.write_bytes(b"x")
    left_by_a_kill = tmp_path / ".0123.checkpoint.77.tmp"
    left_by_a_kill.write_bytes(b"x")
    own = Checkpoint(tmp_path, KEY)
    own.file.write_bytes(b"mine")
    with pytest.raises(KeyboardInterrupt), own:
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) == KEPT + 1 and own.file.exists()


def test_it_is_written_every_half_minute_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    checkpoint, state = Checkpoint(tmp_path, KEY), State.start(CASES["softmax"])
    for seconds, written in ((29, False), (30, True), (59, False), (61, True)):
        now = 1000.0 + seconds
        checkpoint.save(state, OBSERVED)
        assert checkpoint.file.exists() == written
        checkpoint.file.unlink(missing_ok=True)


@pytest.mark.parametrize("text", ["", "often", "-1", "nan", "1 s"])
def test_a_time_that_is_none(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UserError, match=rf"^{VARIABLE}: '{text}' must be a number of seconds"):
        Checkpoint(tmp_path, KEY)


def test_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "inf")
    checkpoint = Checkpoint(tmp_path, KEY)
    checkpoint.save(State.start(CASES["softmax"]), OBSERVED)
    assert not checkpoint.file.exists()
