"""The book's loop in plain torch, where neither `d2l` nor torchvision need be installed.

A DataLoader of single images, each made float32 by itself as torchvision's ``ToTensor`` does, with
4 workers; batches go to the device one by one (book, sections 3.5, 3.6 and 7.6).
"""

import time

import torch
from networks import BATCH_SIZE, NETWORKS, sequential
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WORKERS = 4


class Images(Dataset):
    """Pixels, uint8 [n, 784], and their labels, one example at a time."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels = pixels.numpy().reshape(-1, 28, 28)
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """An image, float32 [1, 28, 28] from 0 to 1, and its label."""
        image = torch.from_numpy(self.pixels[index].copy()).view(28, 28, 1)
        return image.permute(2, 0, 1).contiguous().to(torch.float32).div(255), self.labels[index]


class BookLoop:
    """One of the book's networks in training.

    Parameters
    ----------
    variant
        Name in `NETWORKS`.
    images
        To train on.
    device
        That trains.
    most_seconds
        After which an epoch ends early.
    """

    def __init__(
        self, variant: str, images: Images, device: torch.device, most_seconds: float
    ) -> None:
        self.device, self.most_seconds = device, most_seconds
        self.share = 1.0  # of its batches that the last epoch had
        self.net = sequential(variant).to(device)
        self.loss = nn.CrossEntropyLoss(reduction="none")
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=NETWORKS[variant].lr)
        self.loader = DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=WORKERS)

    def train_epoch(self) -> None:
        """Train an epoch, or as much of it as the time allows."""
        self.net.train()
        tick = time.perf_counter()
        loss_sum = num_correct = 0.0
        done = 0
        for x, y in self.loader:
            inputs, targets = x.to(self.device), y.to(self.device)
            outputs = self.net(inputs)
            loss = self.loss(outputs, targets)
            self.optimizer.zero_grad()
            loss.mean().backward()
            self.optimizer.step()
            loss_sum += float(loss.detach().sum())
            num_correct += float((outputs.argmax(1) == targets).sum())
            done += 1
            if time.perf_counter() - tick > self.most_seconds:
                break
        self.share = done / len(self.loader)
