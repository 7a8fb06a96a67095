"""Batches, their order and their masks: what both engines share."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from refashion import selftest
from refashion.training.engine import batches, mask, order

CPU = torch.device("cpu")
SETTINGS = selftest.INSTANCES["dropout"]


@given(n=st.integers(1, 1000), size=st.integers(1, 1200))
def test_batches_cover_everything_once(n: int, size: int) -> None:
    slices = batches(n, size)
    assert [i for s in slices for i in range(n)[s]] == list(range(n))
    assert all(s.stop - s.start == size for s in slices[:-1])
    assert 1 <= slices[-1].stop - slices[-1].start <= size


def test_every_epoch_and_seed_has_its_order() -> None:
    orders = [
        order(replace(SETTINGS, seed=seed), 100, epoch, CPU) for seed in (0, 1) for epoch in (1, 2)
    ]
    assert all(sorted(o.tolist()) == list(range(100)) for o in orders)
    assert len({tuple(o.tolist()) for o in orders}) == 4


@pytest.mark.parametrize("layer", [0, 1])
def test_masks_do_not_depend_on_the_batches(layer: int) -> None:
    whole = mask(SETTINGS, slice(0, 200), 1, layer, CPU)
    assert whole.shape == (200, 256)
    assert torch.equal(mask(SETTINGS, slice(70, 131), 1, layer, CPU), whole[70:131])
    assert whole.double().mean().item() == pytest.approx(1 - SETTINGS.dropout[layer], abs=0.01)


def test_layers_epochs_and_seeds_have_masks_of_their_own() -> None:
    alike = replace(SETTINGS, dropout=(0.5, 0.5))
    masks = [
        mask(replace(alike, seed=seed), slice(0, 100), epoch, layer, CPU).double() - 0.5
        for seed in (0, 1)
        for epoch in (1, 2)
        for layer in (0, 1)
    ]
    correlations = torch.corrcoef(torch.stack([m.flatten() for m in masks])) - torch.eye(8)
    assert correlations.abs().max() < 5 / 25600**0.5
