"""The typed, validated view of ``params.yaml``: the only reader of that file."""

import math
import re
import reprlib
import sys
from difflib import get_close_matches
from functools import reduce
from operator import getitem
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from refashion.base import paths
from refashion.base.errors import UserError
from refashion.base.params.fields import (
    Count,
    Dataset,
    Device,
    DistinctFiles,
    Dropouts,
    LearningRate,
    Name,
    Numerics,
    Penalty,
    Seed,
    Strict,
    Widths,
    one_of,
)
from refashion.base.params.studies import StudiesParams

S = TypeVar("S", bound=Strict)


class DataParams(Strict):
    """Which images, and how they are split."""

    dataset: Dataset = one_of(Dataset)
    """Fashion-MNIST or one of its drop-in kin; ``digits`` ships with scikit-learn."""

    limit: int | None = Field(ge=1, description="an integer >= 1, or empty")
    """Use only the first N training images; None: all."""

    validation: float = Field(ge=0, lt=1, allow_inf_nan=False, description="a number in [0, 1)")
    """Share of the training images held out for validation."""

    seed: Seed
    """Of the split into training and validation images."""


class VariantParams(Strict):
    """One architecture, and the learning rate that suits it."""

    hidden: Widths
    """Widths of the hidden layers; none: softmax regression."""

    dropout: Dropouts = None
    """Probability to drop a unit, after each hidden layer; None: drop nothing."""

    lr: LearningRate = None
    """Learning rate, unless the one of all variants is given."""

    @model_validator(mode="after")
    def _one_dropout_per_layer(self) -> "VariantParams":
        if self.dropout is not None and len(self.dropout) != len(self.hidden):
            raise ValueError(
                f"dropout has {len(self.dropout)} values and hidden has {len(self.hidden)}; "
                "give one dropout for each hidden layer"
            )
        return self


class Threshold(Strict):
    """What is asked of a metric: one bound, and how far beyond it is still accepted."""

    at_least: float | None = Field(None, allow_inf_nan=False, description="a number")
    """For metrics that should be high."""

    at_most: float | None = Field(None, allow_inf_nan=False, description="a number")
    """For metrics that should be low."""

    margin: float = Field(0.0, ge=0, allow_inf_nan=False, description="a number >= 0")
    """Distance beyond the bound that is still accepted."""

    @model_validator(mode="after")
    def _one_bound(self) -> "Threshold":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("needs one bound; give at_least or at_most")
        return self

    def admits(self, value: float) -> bool:
        """Whether a value is good enough; NaN never is."""
        if self.at_least is not None:
            return value >= self.at_least - self.margin
        assert self.at_most is not None
        return value <= self.at_most + self.margin

    def __str__(self) -> str:
        """As people write it."""
        sign, bound = (">=", self.at_least) if self.at_most is None else ("<=", self.at_most)
        return f"{sign} {bound:g}" + (f" (margin {self.margin:g})" if self.margin else "")


class Params(Strict):
    """Every setting of the pipeline, as ``params.yaml`` holds it."""

    lr: LearningRate
    """Learning rate of every variant; None: each variant's own."""

    seed: Seed
    """Initial weights, batch order and dropout masks follow from it."""

    epochs: Count
    """Passes over the training images."""

    batch_size: Count
    """Images per step; the last batch of an epoch may be smaller."""

    weight_decay: Penalty
    """L2 penalty on the weights, not on the biases."""

    momentum: float = Field(ge=0, lt=1, allow_inf_nan=False, description="a number in [0, 1)")
    """Of SGD."""

    device: Device = one_of(Device)
    """Where to train; ``auto``: a GPU where there is one."""

    numerics: Numerics = one_of(Numerics)
    """The engine."""

    data: DataParams = Field(description="a mapping of dataset, limit, validation and seed")
    """Which images, and how they are split."""

    variants: Annotated[dict[Name, VariantParams], DistinctFiles] = Field(
        min_length=1, description="a mapping from names to architectures, at least one"
    )
    """The models to train, by name."""

    studies: StudiesParams | None = Field(
        None, description="a mapping from studies to their settings"
    )
    """The studies beside the classifiers; None in files from before there were any."""

    gates: dict[Name, dict[str, Threshold]] = Field(
        default_factory=dict,
        description="a mapping from variants and studies to metrics to at_least or at_most, "
        "and margin",
    )
    """What ``refashion gate`` asks of the metrics of variants on the test set, and of studies."""

    @model_validator(mode="after")
    def _no_variant_named_as_a_study(self) -> "Params":
        for name in StudiesParams.model_fields:
            if name in self.variants:
                raise ValueError(f"variants.{name}: is the name of a study; choose another")
        return self

    @model_validator(mode="after")
    def _some_learning_rate(self) -> "Params":
        without = [f"variants.{name}.lr" for name, v in self.variants.items() if v.lr is None]
        if self.lr is None and without:
            raise ValueError(
                f"neither lr nor {', '.join(without)} is given; one of them must be a number > 0"
            )
        return self

    def study(self, kind: type[S]) -> S:
        """Give the settings of one study.

        Raises
        ------
        UserError
            If there are none.
        """
        found = [s for _, s in self.studies or () if isinstance(s, kind)]
        if not found:
            raise UserError(
                f"studies is missing in {paths.PARAMS.name}; bring it back with "
                f"`git checkout {paths.PARAMS.name}`"
            )
        return found[0]

    def resolved(self, variant: str) -> dict[str, Any]:
        """Give what determines one variant's training, besides its data.

        Parameters
        ----------
        variant : str
            A name out of `variants`.

        Returns
        -------
        dict
            The fields of ``training.settings.Settings``: the learning rate of all variants wins
            over the variant's own, and a dropout left out is zero after each hidden layer.

        Raises
        ------
        UserError
            If there is no such variant.
        """
        if variant not in self.variants:
            raise UserError(
                f"variant {variant!r} is not in {paths.PARAMS.name}; "
                f"there are {', '.join(self.variants)}"
            )
        own = self.variants[variant]
        return {
            "hidden": own.hidden,
            "dropout": (0.0,) * len(own.hidden) if own.dropout is None else own.dropout,
            "lr": own.lr if self.lr is None else self.lr,
            "seed": self.seed,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "numerics": self.numerics,
        }


def load(path: Path = paths.PARAMS) -> Params:
    """Read and validate the settings.

    A number that YAML 1.1 takes for text (``1e-05``, as DVC writes it) is accepted where a number
    is due, and told on stderr.

    Parameters
    ----------
    path : Path
        A file laid out as ``params.yaml``.

    Returns
    -------
    Params
        Settings that are legal, each by itself and together.

    Raises
    ------
    UserError
        If the file is missing, is no YAML or holds anything that is not legal: a line for each
        mistake, naming the key, its value and what is legal.
    """
    raw = _read(path)
    try:
        try:
            return Params.model_validate(raw)
        except ValidationError as error:
            if not _accept_numbers_in_text(raw, error, path.name):
                raise
            return Params.model_validate(raw)
    except ValidationError as error:
        # A dict: one line for a list, however many of its items are wrong.
        lines = dict.fromkeys(f"{path.name}: {_explain(raw, e)}" for e in error.errors())
        raise UserError("\n".join(lines)) from None


_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


class _Loader(yaml.SafeLoader):
    """YAML where DVC, which reads version 1.2, sees the same keys and integers as PyYAML."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag not in _KEY_TAGS:
                problem = "a key that is not text; put it in quotes"
            elif key.value in seen:
                problem = f"{key.value} stands here a second time; remove one"
            else:
                seen.add(key.value)
                continue
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: Any) -> int:
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value):
            raise yaml.MarkedYAMLError(
                problem=f"{node.value} is no plain decimal integer; write it as one",
                problem_mark=node.start_mark,
            )
        return int(node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)


def _read(path: Path) -> dict[Any, Any]:
    try:
        raw = yaml.load(path.read_bytes(), _Loader)
    except FileNotFoundError:
        raise UserError(
            f"{path.name}: no such file; bring it back with `git checkout {path.name}`"
        ) from None
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror}; it must be a readable file") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path.name}: line {line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path.name}: not legal YAML: {reason}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path.name}: holds {_show(raw)}; it must be a mapping of settings")
    return raw


def _accept_numbers_in_text(raw: dict[Any, Any], error: ValidationError, file: str) -> bool:
    """Turn text into the number it spells wherever one is due; say whether there was any."""
    found = False
    for e in error.errors():
        if e["type"] != "float_type" or not isinstance(e["input"], str):
            continue
        try:
            number = float(e["input"])
        except ValueError:
            continue
        if math.isfinite(number):
            *parents, key = e["loc"]
            reduce(getitem, parents, raw)[key] = number
            found = True
            print(
                f"{file}: {_dotted(e['loc'])}: the text {e['input']!r} is taken for the number "
                f"{number}; write it with a dot and without quotes",
                file=sys.stderr,
            )
    return found


def _owners(location: tuple[Any, ...]) -> list[type[BaseModel] | None]:
    """The model that each part of a dotted key belongs to; a name of the user's to none."""
    owners: list[type[BaseModel] | None] = []
    kind: Any = Params
    for part in location:
        while get_origin(kind) in (Annotated, UnionType):
            kind = get_args(kind)[0]
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            owners.append(kind)
            field = kind.model_fields.get(part)
            kind = field.annotation if field else None
        elif get_origin(kind) is dict:
            owners.append(None)
            kind = get_args(kind)[1]
        else:
            break  # an item of a list is told with the whole list
    return owners


def _explain(raw: dict[Any, Any], error: Any) -> str:
    """Tell in one line what is wrong at which key, and what is legal there."""
    kind, location = error["type"], error["loc"]
    if kind == "value_error":
        where = f"{_dotted(location)}: " if location else ""
        return f"{where}{error['ctx']['error']}"
    if location[-1] == "[key]":
        return (
            f"{_dotted(location[:-2])}: {_show(error['input'])} is no legal name; "
            "it must be letters, digits, _ and -, a letter or digit first, 64 at most"
        )
    owners = _owners(location)
    location = location[: len(owners)]
    owner = owners[-1]
    key = _dotted(location)
    if kind == "extra_forbidden" and owner:
        near = get_close_matches(location[-1], owner.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(owner.model_fields)}"
        return f"{key}: unknown key; {hint}"
    legal: str | None = {
        ("variants", 2): "a mapping of hidden, dropout and lr",
        ("gates", 2): "a mapping from metrics to at_least or at_most, and margin",
        ("gates", 3): "a mapping of at_least or at_most, and margin",
        ("studies", 4): "a mapping of hidden, optimizer, lr, weight_decay and log_price",
    }.get((location[0], len(location)))
    if owner:
        legal = owner.model_fields[location[-1]].description
    if kind == "missing":
        return f"{key} is missing; it must be {legal}"
    return f"{key} is {_show(reduce(getitem, location, raw))}; it must be {legal}"


def _dotted(location: tuple[Any, ...]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")


def _show(value: Any) -> str:
    return "empty" if value is None else reprlib.repr(value)
