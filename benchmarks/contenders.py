"""Both engines and the raw matrix products: ``python contenders.py NAME FOLDER``."""

import sys
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path

import torch
from networks import BATCH_SIZE, NETWORKS
from serving import Model, serve

from refashion.data import prepared
from refashion.portable.multiply import int8_is_faster
from refashion.training import device as devices
from refashion.training import loop
from refashion.training.engine import batches
from refashion.training.settings import Settings

CPU = torch.device("cpu")


def settings(variant: str, numerics: str, epochs: int = 1) -> Settings:
    """What the book trains, whatever ``params.yaml`` says today."""
    network = NETWORKS[variant]
    return Settings(
        **network._asdict(),
        seed=0,
        epochs=epochs,
        batch_size=BATCH_SIZE,
        weight_decay=0.0,
        momentum=0.0,
        numerics=numerics,
    )


def engine(numerics: str, split: prepared.Split) -> Callable[[str], Model]:
    """One of the engines, on all images of a split."""
    examples = loop.on_device(split, CPU)

    def contender(variant: str) -> Model:
        chosen = settings(variant, numerics)
        trained = loop.start(chosen, CPU)
        epochs = count(1)
        return Model(
            lambda: trained.train_epoch(examples, next(epochs)),
            lambda: trained.weights().values(),
        )

    return contender


def products(n: int) -> Callable[[str], Model]:
    """The float32 matrix products without which no epoch on `n` images can be, and nothing else.

    Per batch and layer: the outputs, the gradient of the weights and, but for the first layer,
    that of the inputs. Their layout is that of ``nn.Linear``, the fastest one; all operands and
    results lie ready, in the caches where they fit.
    """

    def contender(variant: str) -> Model:
        chosen = settings(variant, "native")
        size = chosen.batch_size
        layers = []
        for inputs, outputs in pairwise(chosen.widths):
            operands = [
                torch.randn(s) for s in ((size, inputs), (outputs, inputs), (size, outputs))
            ]
            layers.append((*operands, *[torch.empty_like(o) for o in operands]))
        sizes = [rows.stop - rows.start for rows in batches(n, size)]

        def epoch() -> None:
            for rows in sizes:
                for layer, (x, w, g, x_gradient, w_gradient, y) in enumerate(layers):
                    torch.mm(x[:rows], w.mT, out=y[:rows])
                    torch.mm(g[:rows].mT, x[:rows], out=w_gradient)
                    if layer:
                        torch.mm(g[:rows], w, out=x_gradient[:rows])

        return Model(epoch, tuple)

    return contender


def main(name: str, folder: str) -> None:
    """Serve the contender `name` on the split in `folder`."""
    split = prepared.load(Path(folder))
    contender = products(len(split.labels)) if name == "products" else engine(name, split)
    way = "int8" if int8_is_faster(CPU) else "float64"  # the portable engine's
    about = {"cpu": devices.describe(CPU), "products": way}
    serve({**about, **devices.software()}, contender)


if __name__ == "__main__":
    main(*sys.argv[1:])
