"""The book's own loop: package `d2l`, its DataLoader with 4 workers, its ``train_epoch_ch3``.

The networks are those of the concise sections 3.7, 4.3 and 4.6. To be run where ``../data`` holds
the files as torchvision expects them; the package has that path fixed.
"""

import warnings

import d2l
import torch
from d2l import torch as book
from serving import Epoch, serve
from torch import nn, optim

BATCH_SIZE = 256


def contender(variant: str) -> Epoch:
    """One of the book's networks, as its section trains it."""
    net, lr = {
        "softmax": (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), 0.1),
        "mlp": (
            nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)),
            0.1,
        ),
        "dropout": (
            nn.Sequential(
                nn.Flatten(),
                nn.Linear(784, 256),
                nn.ReLU(),
                nn.Dropout(0.2),
                nn.Linear(256, 256),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(256, 10),
            ),
            0.5,
        ),
    }[variant]
    net.apply(init_weights)
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = optim.SGD(net.parameters(), lr=lr)
    train_iter, _ = book.load_data_fashion_mnist(BATCH_SIZE)
    return lambda: book.train_epoch_ch3(net, train_iter, loss, trainer)


def init_weights(m: nn.Module) -> None:
    """Weights from N(0, 0.01)."""
    if isinstance(m, nn.Linear):
        nn.init.normal_(m.weight, std=0.01)


if __name__ == "__main__":
    # Of 4 workers on fewer cores, and of a loss made a number with its gradient attached.
    warnings.filterwarnings("ignore", message="This DataLoader will create|Converting a tensor")
    serve({"d2l": d2l.__version__, "torch": torch.__version__}, contender)
