"""Softmax and cross-entropy by LogSumExp (book, sections 3.4, 3.6 and 3.7)."""

from functools import cache

import torch
from torch import Tensor

from refashion.portable import exact, functions
from refashion.portable.multiply import EXACT_FLOAT64

EXPONENTIAL_BITS = 40
NEGLIGIBLE = -40.0  # exp(-40) is below the grid 2**-40 of the exponentials
STEPS = 1024  # of the table of exponentials, from a whole number to the next


def terms(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Terms of the softmax of logits of any size, float64 [..., n, k], before it divides.

    Returns
    -------
    shifted : Tensor
        Logits less their row's maximum: float64 [..., n, k], at most 0.
    exponentials : Tensor
        ``exp(shifted)`` rounded to whole multiples of 2**-40: float64 [..., n, k], up to 2**40.
    totals : Tensor
        Their sum over the classes, exact below 2**52: float64 [..., n, 1].

    Raises
    ------
    ValueError
        If there are so many classes (more than 4,096) that a sum could be inexact.
    """
    most = 2 ** (EXACT_FLOAT64 - EXPONENTIAL_BITS)
    if logits.shape[-1] > most:
        raise ValueError(f"softmax of {logits.shape[-1]} classes: at most {most} are exact")
    by_class = logits.mT.contiguous()  # long rows are reduced faster
    shifted = by_class - by_class.amax(-2, keepdim=True)
    exponentials = _exponentials(shifted.clamp(min=NEGLIGIBLE))
    return shifted.mT, exponentials.mT, exponentials.sum(-2, keepdim=True).mT


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of the classes: float64 [n, k]."""
    _, exponentials, totals = terms(logits)
    return exponentials / totals


def log_softmax(logits: Tensor) -> Tensor:
    """Natural logarithms of the softmax, finite where it underflows: float64 [n, k]."""
    shifted, _, totals = terms(logits)
    return shifted - _log_total(totals)


def gradients(exponentials: Tensor, totals: Tensor, labels: Tensor) -> Tensor:
    """Gradient ``softmax(o) - y`` of each row's cross-entropy, from its `terms`.

    float64 [..., n, k]; `labels` are the rows' classes, int64 [..., n].
    """
    k = exponentials.shape[-1]
    one_hot = _eye(k, labels.device).index_select(1, labels.flatten()).view(k, *labels.shape)
    return (exponentials / totals).sub_(one_hot.movedim(0, -1))


def losses(shifted: Tensor, totals: Tensor) -> Tensor:
    """Cross-entropy ``-log softmax`` of each row's class: float64, as both arguments.

    They are `terms`: the shifted logit of the class, and the total.
    """
    return _log_total(totals) - shifted


@cache
def _eye(k: int, device: torch.device) -> Tensor:
    return torch.eye(k, dtype=torch.float64, device=device)


@cache
def _table(device: torch.device) -> Tensor:
    """``exp(-i / 1024)`` for i from 0 to 40 * 1024."""
    steps = torch.arange(int(-NEGLIGIBLE) * STEPS + 1, device=device)
    return functions.exp_in_range(steps.to(torch.float64).mul_(-1 / STEPS))


def _exponentials(x: Tensor) -> Tensor:
    """``exp(x)`` in whole multiples of 2**-40, for x in [-40, 0] or NaN.

    ``exp(x) = exp(-i / 1024) * exp(r)`` with ``|r| <= 2**-11``, whose series ends at the cube with
    an error below 2**-48. The multiple of 1 / 1024 is exact, so that it may be fused.
    """
    i = (x * -STEPS).round_()
    r = torch.add(x, i, alpha=1 / STEPS)
    tail = (r * (1 / 6)).add_(0.5).mul_(r).mul_(r).add_(r)
    i = i.to(torch.int32).clamp_(0, int(-NEGLIGIBLE) * STEPS)  # of NaN, any row will do
    power = _table(x.device).index_select(0, i.view(-1)).view_as(x)
    return tail.mul_(power).add_(power).mul_(2.0**EXPONENTIAL_BITS).round_()


def _log_total(totals: Tensor) -> Tensor:
    """LogSumExp of the shifted logits, from the `totals` of their exponentials."""
    return functions.log(totals * 2.0**-EXPONENTIAL_BITS)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the softmax and its gradient, as ``torch.nn.CrossEntropyLoss`` defines it.

    Parameters
    ----------
    logits
        float64 [n, k].
    target
        Classes, int64 [n]; or probabilities of the classes, float64 [n, k].
    weight
        Of every class, float64 [k]; all 1 by default.
    ignore_index
        Rows of this class are left out.
    reduction
        ``none``, ``sum``, or ``mean``: over the rows, weighted where the target is classes.

    Returns
    -------
    loss : Tensor
        Nats, float64: [n] for ``none``, else no dimensions.
    gradient : Tensor
        Of the loss (of its sum, for ``none``) with respect to the logits: float64 [n, k].

    Raises
    ------
    ValueError
        For an unknown reduction or a target outside its range.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction {reduction!r}: must be none, mean or sum")
    n, k = logits.shape
    if weight is None:
        weight = torch.ones(k, dtype=torch.float64, device=logits.device)
    shifted, exponentials, totals = terms(logits)
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise ValueError(f"target {tuple(target.shape)}: must have the logits' shape {n, k}")
        share = target * weight
        # 0 * -inf is 0 here: a class without share adds nothing, however unlikely.
        log_probabilities = torch.where(share == 0, 0.0, shifted - _log_total(totals))
        rows = _row_sums(share * log_probabilities).neg_()
        gradient = exponentials / totals * _row_sums(share)[:, None] - share
        divisor = torch.tensor(float(n), dtype=torch.float64, device=logits.device)
    else:
        kept = target != ignore_index
        if ((target < 0) | (target >= k))[kept].any():
            raise ValueError(f"target: classes must be 0 to {k - 1}, or {ignore_index} to ignore")
        labels = torch.where(kept, target, 0)
        weights = torch.where(kept, weight[labels], 0.0)
        rows = torch.where(
            weights == 0, 0.0, losses(shifted.gather(1, labels[:, None]), totals)[:, 0] * weights
        )
        gradient = gradients(exponentials, totals, labels) * weights[:, None]
        divisor = _sum(weights)
    if reduction == "none":
        return rows, gradient
    loss = _sum(rows)
    if reduction == "sum":
        return loss, gradient
    return loss / divisor, gradient / divisor


def _row_sums(x: Tensor) -> Tensor:
    """Sum over the classes, every row on its own grid of 40 bits: float64 [n]."""
    grid = exact.quantise(x, EXPONENTIAL_BITS, exact.magnitude(x, by_row=True))
    return exact.total(grid, -1)


def _sum(x: Tensor) -> Tensor:
    """Sum of a vector, on a grid of 30 bits: float64 without dimensions."""
    if not len(x):
        return x.sum()
    return exact.total(exact.quantise(x[None], 30), -1)[0]
