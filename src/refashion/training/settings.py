"""Settings of a training."""

from dataclasses import asdict, dataclass
from typing import Any

NUM_INPUTS = 28 * 28
NUM_CLASSES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Settings of one training; the defaults are the book's softmax regression."""

    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers; none: softmax regression."""

    dropout: tuple[float, ...] = ()
    """Probability to drop a unit, after each hidden layer, in [0, 1); by default 0."""

    lr: float = 0.1
    """Learning rate."""

    seed: int = 0
    """Initial weights, batch order and dropout masks follow from it."""

    epochs: int = 10
    """Passes over the training examples."""

    batch_size: int = 256
    """Examples per step; the last batch of an epoch may be smaller."""

    weight_decay: float = 0.0
    """L2 penalty on the weights, not on the biases (book, section 3.7)."""

    momentum: float = 0.0
    """Momentum of SGD, in [0, 1)."""

    numerics: str = "portable"
    """The engine: ``portable`` or ``native``."""

    num_inputs: int = NUM_INPUTS
    """Pixels of an image, or features."""

    num_outputs: int = NUM_CLASSES
    """Classes, or numbers to be predicted."""

    initialisation: str = "small_normal"
    """Scheme of the initial weights (`refashion.training.initial`)."""

    loss: str = "cross_entropy"
    """``cross_entropy``, or ``squared``: half the squared error."""

    optimizer: str = "sgd"
    """``sgd``, or ``adam``, which ignores the momentum."""

    def __post_init__(self) -> None:
        """Fill in the dropout of 0 after each hidden layer."""
        if not self.dropout:
            object.__setattr__(self, "dropout", (0.0,) * len(self.hidden))
        assert len(self.dropout) == len(self.hidden)

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of every layer, from the inputs to the outputs."""
        return (self.num_inputs, *self.hidden, self.num_outputs)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the record: tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
