from typing import get_args

import pytest

from refashion.base import params
from refashion.data import sources
from refashion.data.catalogue import DATASETS, FILES


def test_params_offer_exactly_these_data_sets() -> None:
    assert set(DATASETS) == set(get_args(params.Dataset))


@pytest.mark.parametrize("dataset", DATASETS)
def test_ten_different_classes(dataset: str) -> None:
    assert len(set(DATASETS[dataset].classes)) == 10


@pytest.mark.parametrize("dataset", ["fashion_mnist", "mnist", "kmnist"])
def test_agrees_with_torchvision(dataset: str) -> None:
    from torchvision import datasets

    known = DATASETS[dataset]
    theirs = getattr(datasets, str(known.torchvision)).classes
    assert known.classes == tuple(name.partition(" - ")[0] for name in theirs)
    pinned = sources.official(dataset)
    assert pinned.checksums == dict(getattr(datasets, str(known.torchvision)).resources)
    assert set(pinned.checksums) == {name for pair in FILES.values() for name in pair}
    mirrors = pinned.mirrors()
    assert mirrors[-len(known.authors) :] == known.authors or not known.authors
    assert mirrors and all(folder.endswith("/") for folder in mirrors)
