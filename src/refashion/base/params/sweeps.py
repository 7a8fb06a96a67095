"""Sweeps: trainings of one variant with many settings."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)

from refashion.base.params import fields
from refashion.base.params.fields import Strict, up_to
from refashion.base.params.mistakes import show

SETTINGS: dict[str, Any] = {
    "lr": fields.Rate,
    "seed": fields.Seed,
    "epochs": fields.Count,
    "batch_size": fields.Count,
    "weight_decay": fields.Penalty,
    "momentum": fields.Share,
    "hidden": fields.Widths,
    "dropout": fields.Dropouts,
}
"""What can be swept, and what is legal for it."""

CONTINUOUS = ("lr", "weight_decay", "momentum")
MOST_TRIALS = 10_000
SMALLEST = 1e-300
"""Low bound of an interval of logarithms."""
LEGAL = (
    "a list of values or {range: [start, stop]}; lr, weight_decay and momentum may be "
    "{uniform: [low, high]} or {log: [low, high]} too"
)


class Interval(Strict):
    """The numbers from `low` to `high`, evenly spread, or their logarithms."""

    low: float
    high: float
    log: bool

    @model_serializer
    def _as_written(self) -> dict[str, list[float]]:
        return {"log" if self.log else "uniform": [self.low, self.high]}


Choices = tuple[Any, ...]


def _space(raw: Any) -> dict[str, Choices | Interval]:
    if not isinstance(raw, dict) or not raw:
        raise ValueError(f"is {show(raw)}; it must be a mapping from settings to {LEGAL}")
    for name in raw:
        if name not in SETTINGS:
            raise ValueError(f"{show(name)} cannot be swept; {', '.join(SETTINGS)} can")
    return {name: _values(name, value) for name, value in raw.items()}


def _values(name: str, given: Any) -> Choices | Interval:
    """The values of one setting, each of which is legal."""
    values: list[Any] = []
    match given:
        case list() if given:
            values = _listed(name, given, given)
        case {"range": [*bounds]} if all(type(bound) is int for bound in bounds) and (
            len(given) == 1 and len(bounds) in (2, 3) and 0 not in bounds[2:]
        ):
            values = _listed(name, given, range(*bounds))
        case {"log": [low, high]} | {"uniform": [low, high]} if (
            name in CONTINUOUS and len(given) == 1
        ):
            low, high = (_legal(name, bound) for bound in (low, high))
            if not low < high:
                raise ValueError(f"{name}: {show(given)} is empty; give the low bound first")
            if "log" in given and low < SMALLEST:
                raise ValueError(f"{name}: {low} has no logarithm; use a low bound >= {SMALLEST}")
            return Interval(low=low, high=high, log="log" in given)
    if not values:
        raise ValueError(f"{name} is {show(given)}; it must be {LEGAL}")
    if twice := [value for value, number in Counter(values).items() if number > 1]:
        raise ValueError(f"{name}: {show(twice[0])} stands there twice; remove one")
    return tuple(values)


def _listed(name: str, given: Any, values: Sequence[Any]) -> list[Any]:
    if values[MOST_TRIALS:]:  # a range may have no length that Python can tell
        raise ValueError(f"{name}: {show(given)} has more than {MOST_TRIALS} values")
    return [_legal(name, value) for value in values]


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(SETTINGS[name])


def _legal(name: str, value: Any) -> Any:
    setting = _adapter(name)
    try:
        return setting.validate_python(value, strict=True)
    except ValidationError:
        legal = setting.json_schema().get("description", "")
        raise ValueError(f"{name}: {show(value)} must be {legal}") from None


class SweepParams(Strict):
    """Trainings of one variant with many settings, the best chosen by validation accuracy."""

    variant: Annotated[fields.Name, Field(description="the name of a variant")]
    space: Annotated[  # the settings to try; all else is as params.yaml has it
        Any, AfterValidator(_space), Field(description=f"a mapping from settings to {LEGAL}")
    ]
    search: Literal["grid", "random", "tpe", "halving"] = "grid"
    trials: Annotated[int | None, up_to(MOST_TRIALS)] = None  # settings to try; None: a whole grid

    @model_validator(mode="after")
    def _trials_are_known(self) -> "SweepParams":
        grid = self.num_choices
        on_grid = self.search in ("grid", "halving")
        if self.search == "halving" and "epochs" in self.space:
            raise ValueError("halving chooses the epochs itself; take epochs out of space")
        if self.trials is None and (not on_grid or len(self.choices) < len(self.space)):
            raise ValueError("trials is missing; say how many settings to try")
        if on_grid and grid > (self.trials or MOST_TRIALS):
            raise ValueError(
                f"a grid of {grid} settings, and trials is {self.trials or MOST_TRIALS} at most; "
                "raise trials, shorten the lists, or take random or tpe for search"
            )
        return self

    @property
    def choices(self) -> dict[str, Choices]:
        """The values of those settings that have a list of them."""
        return {k: v for k, v in self.space.items() if not isinstance(v, Interval)}

    @property
    def num_choices(self) -> int:
        """How many combinations of these values there are."""
        return math.prod(len(values) for values in self.choices.values())
