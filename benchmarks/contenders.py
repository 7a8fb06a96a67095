"""Both engines and the raw matrix products: ``python contenders.py NAME FOLDER``."""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import limits
import torch
from networks import BATCH_SIZE, NETWORKS

from refashion.data import prepared
from refashion.portable.multiply import int8_is_faster
from refashion.training import device as devices
from refashion.training import loop
from refashion.training.engine import Examples
from refashion.training.settings import Settings
from serving import Model, serve

CPU = torch.device("cpu")


def settings(variant: str, numerics: str, epochs: int = 1) -> Settings:
    """Settings of the book's networks, whatever ``params.yaml`` says."""
    network = NETWORKS[variant]
    return Settings(**network._asdict(), epochs=epochs, batch_size=BATCH_SIZE, numerics=numerics)


def engine(numerics: str, split: prepared.Split) -> Callable[[str], Model]:
    """One of the engines, on all images of a split."""
    examples = Examples.of_images(split.images, split.labels)

    def contender(variant: str) -> Model:
        chosen = settings(variant, numerics)
        trained = loop.start([chosen], CPU)
        epochs = count(1)
        return Model(
            lambda: trained.train_epoch([examples], next(epochs)),
            lambda: trained.weights()[0].values(),
        )

    return contender


def products(n: int) -> Callable[[str], Model]:
    """The raw float32 products of an epoch on `n` images: see ``limits.py``."""
    return lambda variant: Model(limits.products(variant, n, CPU), tuple)


def main(name: str, folder: str) -> None:
    """Serve the contender `name` on the split in `folder`."""
    split = prepared.load(Path(folder))
    contender = products(len(split.labels)) if name == "products" else engine(name, split)
    way = "int8" if int8_is_faster(CPU) else "float64"  # the portable engine's
    about = {"cpu": devices.describe(CPU), "products": way}
    serve({**about, **devices.software()}, contender)


if __name__ == "__main__":
    main(*sys.argv[1:])
