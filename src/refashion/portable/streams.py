"""Counter-based random streams: a number is a function of a key and its position, without state.

Any part of any stream can be made alone, on any device, in any order. The generator is SplitMix64
(Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): a Weyl
sequence that starts at the key, finished by a 64-bit mix. Only integer operations touch the bits;
those of torch wrap at 64 bits on every device.
"""

import sys
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

from refashion.portable import functions

WEYL = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
LANES = 4  # 16-bit lanes in a 64-bit number


class Purpose(IntEnum):
    """What a stream is for: one seed gives every purpose a stream of its own."""

    INITIAL = 1
    SHUFFLE = 2
    DROPOUT = 3
    SPLIT = 4
    SELFTEST = 5
    FOLDS = 6
    EXAMPLES = 7


def _signed(word: int) -> int:
    """The int64 with the same 64 bits."""
    word %= 2**64
    return word - 2**64 if word >= 2**63 else word


def _mix_word(word: int) -> int:
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, 1), strict=True):
        word = (word ^ (word >> shift)) * multiplier % 2**64
    return word


def _mix_(x: Tensor) -> Tensor:
    """Finish every number of `x` (int64), in place."""
    shifted = torch.empty_like(x)
    for shift, multiplier in zip(SHIFTS, (*MULTIPLIERS, 1), strict=True):
        torch.bitwise_right_shift(x, shift, out=shifted)  # arithmetic: clear the copied sign
        x.bitwise_xor_(shifted.bitwise_and_(2 ** (64 - shift) - 1))
        if multiplier != 1:
            x.mul_(_signed(multiplier))
    return x


def key(seed: int, purpose: Purpose, *counters: int) -> int:
    """Key of the stream for `purpose` under `seed`, further split by `counters`: 64 unsigned bits.

    Parameters
    ----------
    seed
        Any integer in [0, 2**63).
    purpose
        What the numbers are for.
    *counters
        Such as the epoch and the layer.
    """
    word = 0
    for part in (seed, purpose, *counters):
        word = _mix_word((word + WEYL + part) % 2**64)
    return word


def bits(n: int, key: int, *, first: int = 0, device: torch.device | str = "cpu") -> Tensor:
    """Numbers `first` to ``first + n - 1`` of the stream, 64 uniform bits each: int64 [n]."""
    x = torch.arange(first + 1, first + n + 1, device=device)
    return _mix_(x.mul_(_signed(WEYL)).add_(_signed(key)))


def permutation(n: int, key: int, *, device: torch.device | str = "cpu") -> Tensor:
    """A uniformly random order of 0 to ``n - 1``: int64 [n].

    It is the stable argsort of the stream's first `n` numbers.
    """
    return bits(n, key, device=device).argsort(stable=True)


def normal(shape: Sequence[int], key: int, *, device: torch.device | str = "cpu") -> Tensor:
    """Independent standard normal numbers: float64 [*shape].

    They are the normal quantiles of midpoints of 2**52 equal intervals.
    """
    n = 1
    for size in shape:
        n *= size
    steps = bits(n, key, device=device).bitwise_right_shift_(12).bitwise_and_(2**52 - 1)
    uniform = steps.to(torch.float64).add_(0.5).mul_(2.0**-52)
    return functions.normal_quantile(uniform).reshape(tuple(shape))


def keep_probability(dropout: float) -> float:
    """The probability that `bernoulli_rows` keeps a unit: a multiple of 2**-15, not 0 nor 1."""
    return min(max(1, round((1 - dropout) * 2**15)), 2**15 - 1) / 2**15


def bernoulli_rows(
    rows: tuple[int, int],
    width: int,
    dropout: float,
    key: int,
    *,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Dropout masks of the rows `rows[0]` to ``rows[1] - 1`` of an epoch: float32 [rows, width].

    1, with probability ``keep_probability(dropout)``, where a unit stays, else 0. A row's mask
    depends on the key and the row alone, not on how rows are batched.
    """
    start, stop = rows
    words = -(-width // LANES)
    lanes = bits((stop - start) * words, key, first=start * words, device=device)
    lanes = lanes.view(torch.int16).view(stop - start, words, LANES)
    if sys.byteorder == "big":
        lanes = lanes.flip(-1)  # the lowest bits first, as elsewhere
    lanes = lanes.flatten(1)[:, :width]
    last_kept = round(keep_probability(dropout) * 2**15) - 2**14 - 1
    # Four fast operations in place of one comparison, which is slow: the sign tells.
    kept = (last_kept - lanes.bitwise_right_shift(1)).bitwise_right_shift_(15).add_(1)
    return kept.to(torch.float32)
