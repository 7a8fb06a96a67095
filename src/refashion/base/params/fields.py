"""Kinds of settings that several parts of ``params.yaml`` share."""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)


def one_of(choices: Any) -> Any:
    """Field that is one of a few words."""
    return Field(description=f"one of {', '.join(get_args(choices))}")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _distinct_files(named: dict[str, Any]) -> dict[str, Any]:
    # Some file systems take "MLP" and "mlp" for one name: their results would share a folder.
    lower = [name.lower() for name in named]
    clashes = [repr(name) for name in named if lower.count(name.lower()) > 1]
    if clashes:
        raise ValueError(f"{' and '.join(clashes)} differ in case alone; rename one")
    return named


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    twice = [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice; remove one")
    return values


Count = Annotated[int, Field(ge=1, description="an integer >= 1")]
Seed = Annotated[int, Field(ge=0, lt=2**63, description="an integer from 0 to 2**63 - 1")]
Folds = Annotated[int, Field(ge=2, le=100, description="an integer from 2 to 100")]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False, description="a number > 0")]
Penalty = Annotated[float, Field(ge=0, allow_inf_nan=False, description="a number >= 0")]
LearningRate = Annotated[
    float | None, Field(gt=0, allow_inf_nan=False, description="a number > 0, or empty")
]
Widths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=4096)], ...],
    BeforeValidator(_tuple),
    Field(description="a list of integers from 1 to 4096"),
]
Penalties = Annotated[
    tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...],
    BeforeValidator(_tuple),
    AfterValidator(_distinct),
    Field(min_length=1, description="a list of numbers >= 0, at least one"),
]
Dropouts = Annotated[
    tuple[Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)], ...] | None,
    BeforeValidator(_tuple),
    Field(description="a list of numbers in [0, 1), one for each hidden layer"),
]
Name = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9_-]*\z", max_length=64)]
DistinctFiles = AfterValidator(_distinct_files)

Dataset = Literal["fashion_mnist", "mnist", "kmnist", "digits"]
Device = Literal["auto", "cpu", "cuda"]
Numerics = Literal["portable", "native"]
Optimizer = Literal["sgd", "adam"]
Houses = Literal["kaggle", "made_up"]


class Strict(BaseModel):
    """Nothing is converted, and nothing unknown is let in."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
