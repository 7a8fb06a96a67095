"""Inputs on their way to the engines: read in whatever way, every batch is the same."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from oracles import train
from refashion import selftest
from refashion.data import prepared
from refashion.training import engine
from refashion.training.engine import Examples, Reader, batches, on_device
from refashion.training.loop import Model
from refashion.training.settings import Settings

CPU = torch.device("cpu")
IMAGES = selftest.examples(CPU)[:200]
PLAIN = Settings(hidden=(6,), dropout=(0.3,), batch_size=32, epochs=2, lr=0.3)


@pytest.fixture(params=[1, 33, 70, 10_000])
def blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Images that do not fit in memory, which holds so many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "RESIDENT", 0)
        patch.setattr(engine, "BLOCK", request.param * 784)
        yield


@given(st.data(), st.integers(1, 60), st.integers(1, 70), st.integers(1, 9), st.integers(0, 70))
def test_a_batch_is_that_of_the_order(
    data: st.DataObject, n: int, size: int, piece: int, block: int
) -> None:
    """Of all inputs or some of them, in any order, in blocks or not."""
    inputs = torch.arange(n * 3, dtype=torch.int32).view(n, 3)
    examples, want = Examples(inputs=inputs, targets=torch.arange(n)), inputs
    numbers = st.lists(st.integers(0, n - 1), min_size=1, max_size=60)
    for rows in data.draw(st.lists(numbers, max_size=2)):
        rows = torch.tensor([row % len(examples) for row in rows])
        examples, want = examples.select(rows), want[rows]
        assert torch.equal(examples.targets, want[:, 0] // 3)
    order = None
    if data.draw(st.booleans()):
        order = torch.tensor(data.draw(st.permutations(range(len(examples)))))
        want = want[order]
    with pytest.MonkeyPatch.context() as patch:
        if block:
            patch.setattr(engine, "RESIDENT", 0)
        patch.setattr(engine, "BLOCK", block * inputs[0].nbytes)
        patch.setattr(engine, "PIECE", piece)
        reader = Reader(examples, order)
        for rows in batches(len(examples), size):
            assert torch.equal(reader[rows], want[rows])
        first = slice(0, min(size, len(examples)))
        assert torch.equal(reader[first], want[first])  # again, from the start


CASES = {
    "portable": [PLAIN],
    "native": [replace(PLAIN, numerics="native")],
    "shared batches": [PLAIN, replace(PLAIN, lr=0.1)],
    "other orders": [PLAIN, replace(PLAIN, seed=1), replace(PLAIN, seed=2)],
}


def models(case: str, known: Examples) -> list[Model]:
    """Models that learn from parts of the same images."""
    data = known.select(torch.arange(150)), known.select(torch.arange(150, 200))
    return [Model(settings=s, train=data[0], validation=data[1]) for s in CASES[case]]


@pytest.mark.parametrize("case", CASES)
def test_images_beyond_memory_give_the_same_bits(
    case: str, blocks: None, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    prepared.save(tmp_path, IMAGES.inputs.numpy(), IMAGES.targets.numpy().astype(np.uint8))
    split = prepared.load(tmp_path)
    mapped = train(*models(case, Examples.of_images(split.images, split.labels)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "RESIDENT", 2**40)
        in_memory = [m for model in models(case, IMAGES) for m in train(copied(model))]
    assert [t.history for t in mapped] == [
        [replace(row, model=i) for row in t.history] for i, t in enumerate(in_memory)
    ]
    assert not [str(warning.message) for warning in recwarn]


def copied(model: Model) -> Model:
    """A model whose examples are copies of their own."""
    return replace(model, train=own(model.train), validation=own(model.validation))


def own(examples: Examples) -> Examples:
    assert examples.rows is not None
    return Examples(inputs=examples.inputs[examples.rows].clone(), targets=examples.targets)


def test_images_are_mapped_and_never_copied() -> None:
    images = np.zeros((4, 784), dtype=np.uint8)
    images.flags.writeable = False
    known = Examples.of_images(images, np.zeros(4, dtype=np.uint8))
    parts = [known, known[1:3], known.select(torch.tensor([3, 0]))]
    parts += on_device([*parts, known.select(torch.tensor([3, 0]))[1:]], CPU)
    for part in parts:
        assert part.inputs.untyped_storage().data_ptr() == images.ctypes.data


def test_slices_of_a_selection() -> None:
    some = IMAGES.select(torch.tensor([7, 3, 5]))[1:]
    assert len(some) == 2 and torch.equal(some.targets, IMAGES.targets[[3, 5]])
    assert torch.equal(Reader(some)[0:2], IMAGES.inputs[[3, 5]])
