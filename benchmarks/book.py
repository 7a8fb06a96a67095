"""The book's own loop, with a DataLoader of 4 workers: ``python book.py FOLDER``.

Package `d2l` and its ``train_epoch_ch3``, on the networks of the concise sections 3.7, 4.3 and 4.6.
``FOLDER/../data`` holds the files as torchvision expects them.
"""

import os
import sys
import warnings

import torch
from d2l import torch as book
from networks import BATCH_SIZE, NETWORKS, sequential
from torch import nn, optim

from serving import Model, serve


def contender(variant: str) -> Model:
    """One of the book's networks, as its section trains it."""
    net = sequential(variant)
    loss = nn.CrossEntropyLoss(reduction="none")
    trainer = optim.SGD(net.parameters(), lr=NETWORKS[variant].lr)
    train_iter, _ = book.load_data_fashion_mnist(BATCH_SIZE)
    return Model(lambda: book.train_epoch_ch3(net, train_iter, loss, trainer), net.parameters)


if __name__ == "__main__":
    # Of 4 workers on fewer cores, and of a loss made a number with its gradient attached.
    warnings.filterwarnings("ignore", message="This DataLoader will create|Converting a tensor")
    os.chdir(sys.argv[1])  # the package reads ../data, whatever one asks for
    serve({"torch": torch.__version__}, contender)
