"""Lay out the images for all contenders: ``python images.py FOLDER SIZE...``.

Leaves ``FOLDER/data``, as torchvision expects it, and a split ``FOLDER/SIZE`` of every size, the
official training images cut or tiled.
"""

import gzip
import os
import sys
from pathlib import Path

import numpy as np

from refashion.base.errors import UserError
from refashion.base.files import replacing
from refashion.base.workspace import Workspace
from refashion.data import idx, prepared, sources
from refashion.data.catalogue import FILES

NAMES = [name for pair in FILES.values() for name in pair]


def official(folder: Path) -> Path:
    """Folder of the official files, as torchvision expects it; fetched unless they are there."""
    raw = folder / "data" / "FashionMNIST" / "raw"
    if not all((raw / name).exists() for name in NAMES):
        sources.fetch("fashion_mnist", raw, Workspace.here())
    return raw


def main(folder: Path, sizes: list[int]) -> None:
    """Write what is made of the official files."""
    raw = official(folder)
    for name in NAMES:
        with replacing(raw / name.removesuffix(".gz")) as unpacked:
            unpacked.write_bytes(gzip.decompress((raw / name).read_bytes()))
    train_images, train_labels = FILES["train"]
    images, labels = idx.read_images(raw / train_images), idx.read_labels(raw / train_labels)
    for size in sizes:
        rows = np.arange(size) % len(labels)
        prepared.save(folder / str(size), images[rows], labels[rows])
    os.sync()  # or the disk would be at work while times are taken


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), [int(size) for size in sys.argv[2:]])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
