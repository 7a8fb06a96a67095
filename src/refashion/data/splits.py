"""Splits of images into training, validation and test, and of examples into folds."""

from fractions import Fraction
from pathlib import Path

import numpy as np

from refashion.base.errors import UserError
from refashion.data import idx
from refashion.data.catalogue import FILES
from refashion.data.prepared import Split
from refashion.portable import streams


def split(raw: Path, *, limit: int | None, validation: float, seed: int) -> dict[str, Split]:
    """Split the official files of the folder `raw` into ``train``, ``validation`` and ``test``.

    Images keep the order of the files.

    Parameters
    ----------
    limit
        Use only the first so many training images; None: all of them.
    validation, seed
        As in `stratified`; the validation split is empty for a share of 0.

    Raises
    ------
    UserError
        A file is not sound, or `limit` or `validation` ask for what cannot be had.
    """
    train = _read(raw, "train")
    if limit is not None and limit > len(train.labels):
        raise UserError(
            f"data.limit: {limit} is more than the {len(train.labels)} training images; "
            "lower it, or leave it empty for all"
        )
    train = train[:limit]
    kept, held_out = stratified(train.labels, validation, seed)
    return {"train": train[kept], "validation": train[held_out], "test": _read(raw, "test")}


def stratified(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a random share of the images, of every class alike.

    Parameters
    ----------
    labels
        uint8 [n].
    share
        In [0, 1). ``round(share * n)`` images are held out; each class gives its share, rounded
        up or down by the largest remainders (the lower label first among equals).
    seed
        Which images of a class are held out, in [0, 2**63).

    Returns
    -------
    tuple of numpy.ndarray
        Indices of the images that stay and of those held out, each int64 and ascending.

    Raises
    ------
    UserError
        Nothing would stay, or nothing would be held out although `share` is not 0.
    """
    assert 0 <= share < 1
    n = len(labels)
    total = round(share * n)
    if share > 0 and total in (0, n):
        part = "training" if total else "validation"
        raise UserError(
            f"data.validation: {share} of {n} images leaves no {part} image; "
            f"{'lower' if total else 'raise'} it, or set 0 for no validation at all"
        )
    counts = np.bincount(labels).tolist()
    quotas = [Fraction(share) * count for count in counts]
    sizes = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda label: sizes[label] - quotas[label])
    for label in by_remainder[: total - sum(sizes)]:
        sizes[label] += 1

    by_class = _shuffled_by_class(labels, streams.key(seed, streams.Purpose.SPLIT))
    first = np.cumsum(counts) - counts
    rank = np.arange(n) - np.repeat(first, counts)
    chosen = rank < np.repeat(sizes, counts)
    return np.sort(by_class[~chosen]), np.sort(by_class[chosen])


def folds(labels: np.ndarray, k: int, seed: int) -> list[np.ndarray]:
    """Deal examples out to `k` folds at random, every class alike.

    Parameters
    ----------
    labels
        Integers >= 0 [n]; all the same, where there are no classes.
    k
        Number of folds; `UserError` if there are fewer examples.
    seed
        Which example comes to which fold.

    Returns
    -------
    list of numpy.ndarray
        Indices of every fold, int64 and ascending. Sizes differ by one at most, those of a class
        too.
    """
    n = len(labels)
    if n < k:
        raise UserError(f"folds: {k} is more than the {n} examples; lower it")
    by_class = _shuffled_by_class(labels, streams.key(seed, streams.Purpose.FOLDS))
    return [np.sort(by_class[i::k]) for i in range(k)]


def _shuffled_by_class(labels: np.ndarray, key: int) -> np.ndarray:
    """Indices of the examples, sorted by label and shuffled within each label."""
    order = streams.permutation(len(labels), key).numpy()
    return order[np.argsort(labels[order], kind="stable")]


def _read(raw: Path, part: str) -> Split:
    images_path, labels_path = (raw / name for name in FILES[part])
    images, labels = idx.read_images(images_path), idx.read_labels(labels_path)
    if not 0 < len(images) == len(labels):
        raise UserError(
            f"{images_path}: its {len(images)} images have {len(labels)} labels in "
            f"{labels_path.name}; fetch the official files again"
        )
    return Split(images=images, labels=labels)
