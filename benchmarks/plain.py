"""A plain loop of PyTorch, also on another package's layers: ``python plain.py NAME FOLDER``.

plain
    What a careful user of PyTorch writes: all images in memory as float32, shuffled by
    ``randperm``, torch's own modules and optimizer, nothing asked of determinism.
carbon
    The same loop as the README of package `alia-carbon` asks for it: ``carbon.enable(seed=...)``,
    and ``DeterministicLinear`` in place of ``nn.Linear``. Its ``DeterministicTrainer`` with
    ``replace_linear=True`` is no choice: the optimizer keeps the layers that were replaced, and
    no weight moves.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from networks import BATCH_SIZE, NETWORKS, sequential
from torch import nn

from serving import Model, serve

SEED = 0


def trainer(folder: Path, linear: Callable[[int, int], nn.Linear]) -> Callable[[str], Model]:
    """The loop on the split in `folder`, with layers that `linear` makes."""
    x = torch.from_numpy(np.load(folder / "images.npy")).float() / 255
    y = torch.from_numpy(np.load(folder / "labels.npy")).long()

    def contender(variant: str) -> Model:
        net = sequential(variant, linear)
        cross_entropy = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=NETWORKS[variant].lr)

        def train_epoch() -> tuple[float, float]:
            loss_sum, num_correct = torch.zeros(()), torch.zeros(())
            for rows in torch.randperm(len(x)).split(BATCH_SIZE):
                targets = y[rows]
                logits = net(x[rows])
                loss = cross_entropy(logits, targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                # Kept as tensors: a number for every batch would wait for it.
                loss_sum += loss.detach() * len(rows)
                num_correct += (logits.detach().argmax(1) == targets).sum()
            return loss_sum.item() / len(x), num_correct.item() / len(x)

        return Model(train_epoch, net.parameters)

    return contender


def main(name: str, folder: str) -> None:
    """Serve the contender `name` on the split in `folder`."""
    linear: Callable[[int, int], nn.Linear] = nn.Linear
    torch.manual_seed(SEED)
    if name == "carbon":
        import carbon

        carbon.enable(seed=SEED, warn=False)
        linear = carbon.DeterministicLinear
    serve({"torch": torch.__version__}, trainer(Path(folder), linear))


if __name__ == "__main__":
    main(*sys.argv[1:])
