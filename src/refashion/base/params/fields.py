"""Kinds of settings that several parts of ``params.yaml`` share.

The description of a field completes "it must be", in the line that tells of an illegal value.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Strict(BaseModel):
    """Settings of which nothing is converted, and none may be unknown."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


def up_to(largest: int) -> Any:
    """Field that is an integer from 1 to `largest`."""
    return Field(ge=1, le=largest, description=f"an integer from 1 to {largest}")


def _distinct_names(settings: dict[str, Any]) -> dict[str, Any]:
    # Some file systems take "MLP" and "mlp" for one name: their results would share a folder.
    lower = [name.lower() for name in settings]
    clashes = [repr(name) for name in settings if lower.count(name.lower()) > 1]
    if clashes:
        raise ValueError(f"{' and '.join(clashes)} differ in case alone; rename one")
    return settings


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    twice = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice; remove one")
    return values


AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
Count = Annotated[int, Field(ge=1, lt=2**63, description="an integer from 1 to 2**63 - 1")]
Limit = Annotated[Count | None, Field(description="an integer from 1 to 2**63 - 1, or empty")]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="an integer from 0 to 2**63 - 1")]
Folds = Annotated[int, Field(ge=2, le=100, description="an integer from 2 to 100")]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Bound = Annotated[Finite | None, Field(description="a number")]
Rate = Annotated[Finite, Field(gt=0, description="a number > 0")]
Penalty = Annotated[Finite, Field(ge=0, description="a number >= 0")]
Share = Annotated[Finite, Field(ge=0, lt=1, description="a number in [0, 1)")]
LearningRate = Annotated[Rate | None, Field(description="a number > 0, or empty")]
Widths = Annotated[
    tuple[Annotated[int, up_to(4096)], ...],
    AsTuple,
    Field(description="a list of integers from 1 to 4096"),
]
Penalties = Annotated[
    tuple[Penalty, ...],
    AsTuple,
    AfterValidator(_distinct),
    Field(min_length=1, description="a list of numbers >= 0, at least one"),
]
Dropouts = Annotated[
    tuple[Share, ...] | None,
    AsTuple,
    Field(description="a list of numbers in [0, 1), one for each hidden layer"),
]
NAME = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"
Name = Annotated[str, Field(pattern=rf"\A{NAME}\z")]
RunName = Annotated[
    str,
    Field(
        pattern=rf"\A{NAME}(/[A-Za-z0-9][A-Za-z0-9_.+-]{{0,63}})?\z",
        description="the name of a run, as mlp or weight_decay/decay_3",
    ),
]
DistinctNames = AfterValidator(_distinct_names)

Dataset = Literal["fashion_mnist", "mnist", "kmnist", "digits"]
Houses = Literal["kaggle", "synthetic"]
Device = Literal["auto", "cpu", "cuda"]
Numerics = Literal["portable", "native"]
Optimizer = Literal["sgd", "adam"]
