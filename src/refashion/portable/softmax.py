"""Softmax and cross-entropy by LogSumExp (book, sections 3.4, 3.6 and 3.7)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from refashion.portable import exact, functions

EXPONENTIAL_BITS = 40
NEGLIGIBLE = -40.0  # exp(-40) is below the grid 2**-40 of the exponentials


@dataclass(frozen=True, slots=True)
class SoftmaxTerms:
    """``softmax = exponentials / totals``, before the division; k classes, at most 4,096."""

    shifted: Tensor
    """Logits less their row's maximum: float64 [n, k], at most 0."""

    exponentials: Tensor
    """``exp(shifted)`` rounded to whole multiples of 2**-40: float64 [n, k], up to 2**40."""

    totals: Tensor
    """Their sum over the classes, exact below 2**52: float64 [n, 1]."""

    @classmethod
    def of(cls, logits: Tensor) -> "SoftmaxTerms":
        """The terms of logits, float64 [n, k]; no logit is too large."""
        assert logits.shape[1] <= 2 ** (exact.EXACT_FLOAT64 - EXPONENTIAL_BITS)
        shifted = logits - logits.amax(1, keepdim=True)
        exponentials = functions.exp_in_range(shifted.clamp(min=NEGLIGIBLE))
        exponentials = exponentials.mul_(2.0**EXPONENTIAL_BITS).round_()
        return cls(shifted, exponentials, exponentials.sum(1, keepdim=True))

    def probabilities(self) -> Tensor:
        """Softmax: float64 [n, k]."""
        return self.exponentials / self.totals

    def log_probabilities(self) -> Tensor:
        """Logarithms of the softmax, finite where the softmax itself underflows: [n, k]."""
        return self.shifted - log_total(self.totals)


def log_total(totals: Tensor) -> Tensor:
    """LogSumExp of the shifted logits, from the `totals` of their exponentials."""
    return functions.log(totals * 2.0**-EXPONENTIAL_BITS)


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of the classes: float64 [n, k]."""
    return SoftmaxTerms.of(logits).probabilities()


def log_softmax(logits: Tensor) -> Tensor:
    """Their natural logarithms: float64 [n, k]."""
    return SoftmaxTerms.of(logits).log_probabilities()


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the softmax and its gradient, with the meaning of ``torch.nn``'s.

    Parameters
    ----------
    logits
        float64 [n, k].
    target
        Classes, int64 [n]; or probabilities of the classes, float64 [n, k].
    weight
        Of every class, float64 [k]; all 1 by default.
    ignore_index
        A class in `target` whose rows count for nothing.
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
    soft = target.is_floating_point()
    if soft:
        if target.shape != logits.shape:
            raise ValueError(f"target {tuple(target.shape)}: must have the logits' shape {n, k}")
        share = target * weight
        divisor = torch.tensor(float(n), dtype=torch.float64, device=logits.device)
    else:
        counts = target != ignore_index
        if ((target < 0) | (target >= k))[counts].any():
            raise ValueError(f"target: classes must be 0 to {k - 1}, or {ignore_index} to ignore")
        picked = torch.where(counts, target, 0)
        share = torch.zeros_like(logits).scatter_(1, picked[:, None], weight[picked][:, None])
        share.mul_(counts[:, None])
        divisor = _sum(share)
    terms = SoftmaxTerms.of(logits)
    # 0 * -inf is 0 here: a class without share adds nothing, however unlikely.
    log_probabilities = torch.where(share == 0, 0.0, terms.log_probabilities())
    losses = _row_sums(share * log_probabilities).neg_()
    gradient = terms.probabilities() * _row_sums(share)[:, None] - share
    if reduction == "none":
        return losses, gradient
    loss = _sum(losses[:, None])
    if reduction == "sum":
        return loss, gradient
    return loss / divisor, gradient / divisor


def _row_sums(x: Tensor) -> Tensor:
    """Sum over the classes, every row on its own grid of 40 bits: float64 [n]."""
    grid = exact.quantise(x, EXPONENTIAL_BITS, exact.magnitude(x, by_row=True))
    return exact.total(grid, -1)


def _sum(x: Tensor) -> Tensor:
    """Sum of everything, on a grid of 30 bits: float64 without dimensions."""
    return exact.total(exact.quantise(x.reshape(1, -1), 30), -1)[0]
