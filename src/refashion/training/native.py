"""The concise engine: ``torch.nn``, as fast as the hardware allows (book, sections 3.7, 4.3, 4.6).

Deterministic on one machine with one software stack; elsewhere its bits differ.
"""

import os
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from refashion.portable import streams
from refashion.training.engine import AfterStep, Examples, Fit, batches, mask, order
from refashion.training.initial import Weights
from refashion.training.settings import Settings

FIT_ROWS = 8192  # examples of one forward pass without learning


class MaskedDropout(nn.Module):
    """Dropout whose masks are given: both engines drop the same units."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.scale = 1 / streams.keep_probability(probability)
        self.mask: Tensor | None = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Drop what the mask drops and scale up the rest; nothing in evaluation."""
        if not self.training or self.mask is None:
            return hidden
        return hidden * (self.mask * self.scale)


class NativeEngine:
    """See `refashion.training.engine.Engine`."""

    def __init__(self, settings: Settings, start: Weights, device: torch.device) -> None:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.contract = f"native/{device.type}"
        self.settings = settings
        self.device = device
        self.dropouts = [MaskedDropout(p) for p in settings.dropout]
        self.linears = []
        for inputs, outputs in pairwise(settings.widths):
            self.linears.append(nn.utils.skip_init(nn.Linear, inputs, outputs, device=device))
        blocks: list[nn.Module] = [nn.Flatten()]
        for layer, linear in enumerate(self.linears[:-1]):
            blocks += [linear, nn.ReLU()]
            if settings.dropout[layer]:
                blocks.append(self.dropouts[layer])
        self.net = nn.Sequential(*blocks, self.linears[-1])
        with torch.no_grad():
            for layer, linear in enumerate(self.linears):
                linear.weight.copy_(start[f"layers.{layer}.weight"].mT)
                linear.bias.copy_(start[f"layers.{layer}.bias"])
        self.loss = nn.CrossEntropyLoss()
        groups: list[dict[str, Any]] = [
            {"params": [x.weight for x in self.linears], "weight_decay": settings.weight_decay},
            {"params": [x.bias for x in self.linears]},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)

    def train_epoch(
        self, examples: Examples, epoch: int, after_step: AfterStep | None = None
    ) -> Fit:
        """One pass of minibatch SGD."""
        n = len(examples)
        losses, correct = [], []
        self.net.train()
        indices = order(self.settings, n, epoch, self.device)
        for step, rows in enumerate(batches(n, self.settings.batch_size), start=1):
            batch = indices[rows]
            for layer, dropout in enumerate(self.dropouts):
                if self.settings.dropout[layer]:
                    dropout.mask = mask(self.settings, rows, epoch, layer, self.device)
            labels = examples.labels.index_select(0, batch)
            logits = self.net(_scaled(examples.images.index_select(0, batch)))
            loss = self.loss(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach() * len(batch))
            correct.append((logits.detach().argmax(1) == labels).sum())
            if after_step:
                after_step(step)
        return _mean(losses, correct, n)

    @torch.no_grad()
    def fit(self, examples: Examples) -> Fit:
        """Loss and accuracy without dropout."""
        self.net.eval()
        losses, correct = [], []
        for images, labels in zip(
            examples.images.split(FIT_ROWS), examples.labels.split(FIT_ROWS), strict=True
        ):
            logits = self.net(_scaled(images))
            losses.append(self.loss(logits, labels) * len(labels))
            correct.append((logits.argmax(1) == labels).sum())
        return _mean(losses, correct, len(examples))

    def weights(self) -> Weights:
        """The present weights, [inputs, units] as the book writes them."""
        result = {}
        for layer, linear in enumerate(self.linears):
            result[f"layers.{layer}.weight"] = linear.weight.detach().mT.contiguous().cpu()
            result[f"layers.{layer}.bias"] = linear.bias.detach().clone().cpu()
        return result


def _scaled(images: Tensor) -> Tensor:
    """Pixels to [0, 1], float32."""
    return images.to(torch.float32).mul_(1 / 255)


def _mean(losses: list[Tensor], correct: list[Tensor], n: int) -> Fit:
    return Fit(
        loss=float(torch.stack(losses).sum(dtype=torch.float64)) / n,
        accuracy=int(torch.stack(correct).sum()) / n,
    )
