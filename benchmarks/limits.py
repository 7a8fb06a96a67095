"""What no training on a device can be faster than."""

from collections.abc import Callable
from itertools import pairwise

import torch
from networks import BATCH_SIZE, NETWORKS


def products(variant: str, n: int, device: torch.device) -> Callable[[], None]:
    """The float32 matrix products without which no epoch on `n` images can be, and nothing else.

    Per batch and layer: the outputs, the gradient of the weights and, but for the first layer,
    that of the inputs. Their layout is that of ``nn.Linear``, the fastest one; all operands and
    results lie ready, in the caches where they fit.
    """
    layers = []
    for inputs, outputs in pairwise((784, *NETWORKS[variant].hidden, 10)):
        shapes = (BATCH_SIZE, inputs), (outputs, inputs), (BATCH_SIZE, outputs)
        operands = [torch.randn(shape, device=device) for shape in shapes]
        layers.append((*operands, *[torch.empty_like(o) for o in operands]))
    sizes = [min(BATCH_SIZE, n - start) for start in range(0, n, BATCH_SIZE)]

    def epoch() -> None:
        for rows in sizes:
            for layer, (x, w, g, x_gradient, w_gradient, y) in enumerate(layers):
                torch.mm(x[:rows], w.mT, out=y[:rows])
                torch.mm(g[:rows].mT, x[:rows], out=w_gradient)
                if layer:
                    torch.mm(g[:rows], w, out=x_gradient[:rows])

    return epoch
