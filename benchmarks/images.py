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


def main(folder: Path, sizes: list[int]) -> None:
    """Fetch the official files, unless they are here, and write what is made of them."""
    raw = folder / "data" / "FashionMNIST" / "raw"
    names = [name for pair in FILES.values() for name in pair]
    if not all((raw / name).exists() for name in names):
        sources.fetch("fashion_mnist", raw, Workspace.here())
    for name in names:
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
