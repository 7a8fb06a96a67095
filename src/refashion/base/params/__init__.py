"""The typed, validated view of ``params.yaml``: the only reader of that file."""

from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.params import fields, yaml12
from refashion.base.params.fields import Strict
from refashion.base.params.mistakes import explain, show
from refashion.base.params.studies import StudiesParams
from refashion.base.params.sweeps import SweepParams


class DataParams(Strict):
    """Which images, and how they are split."""

    dataset: fields.Dataset  # Fashion-MNIST or one of its kin; digits ships with scikit-learn
    limit: fields.Limit  # use only the first so many training images; None: all
    validation: fields.Share  # share of the training images held out for validation
    seed: fields.Seed  # of the split into training and validation images


class VariantParams(Strict):
    """One architecture, and the learning rate that suits it."""

    hidden: fields.Widths  # widths of the hidden layers; none: softmax regression
    dropout: fields.Dropouts = None  # probability to drop a unit, after each layer; None: drop none
    lr: fields.LearningRate = None  # learning rate, unless the one of all variants is given

    @model_validator(mode="after")
    def _one_dropout_per_layer(self) -> "VariantParams":
        if self.dropout is not None and len(self.dropout) != len(self.hidden):
            raise ValueError(
                f"dropout has {len(self.dropout)} values and hidden has {len(self.hidden)}; "
                "give one dropout for each hidden layer"
            )
        return self


class Gate(Strict):
    """What a metric of a run must be: one bound, and how far beyond it is still accepted."""

    run: fields.RunName  # a variant, or a run of a study
    metric: Annotated[str, Field(min_length=1, description="the name of a metric")]
    at_least: fields.Bound = None  # for metrics that should be high
    at_most: fields.Bound = None  # for metrics that should be low
    margin: fields.Penalty = 0.0  # distance beyond the bound that is still accepted

    @model_validator(mode="after")
    def _one_bound(self) -> "Gate":
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"{self.run}, {self.metric}: needs one bound, at_least or at_most")
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

    lr: fields.LearningRate  # learning rate of every variant; None: each variant's own
    seed: fields.Seed  # initial weights, batch order and dropout masks follow from it
    epochs: fields.Count  # passes over the training images
    batch_size: fields.Count  # images per step; the last batch of an epoch may be smaller
    weight_decay: fields.Penalty  # L2 penalty on the weights, not on the biases
    momentum: fields.Share  # of SGD
    device: fields.Device  # where to train; auto: a GPU where there is one
    numerics: fields.Numerics  # the engine
    data: DataParams  # which images, and how they are split
    variants: Annotated[  # the models to train
        dict[fields.Name, VariantParams],
        fields.DistinctNames,
        Field(min_length=1, description="a mapping from names to architectures, at least one"),
    ]
    gates: Annotated[  # what `refashion gate` asks of runs
        tuple[Gate, ...],
        fields.AsTuple,
        Field(description="a list of mappings of run, metric, at_least or at_most, and margin"),
    ] = ()
    studies: StudiesParams  # what stands beside the classifiers
    sweeps: Annotated[  # trainings of one variant with many settings
        dict[fields.Name, SweepParams],
        fields.DistinctNames,
        Field(description="a mapping from names to sweeps; {} for none"),
    ]

    @model_validator(mode="after")
    def _variants_have_names_and_learning_rates(self) -> "Params":
        taken = {**dict.fromkeys(StudiesParams.model_fields, "study")}
        for section, kind in (("variants", "variant"), ("sweeps", "sweep")):
            for name in getattr(self, section):
                if other := taken.get(name.lower()):
                    raise ValueError(f"{section}.{name}: is the name of a {other}; choose another")
                taken[name.lower()] = kind
        without = [f"variants.{name}.lr" for name, v in self.variants.items() if v.lr is None]
        if self.lr is None and without:
            raise ValueError(
                f"neither lr nor {', '.join(without)} is given; one of them must be a number > 0"
            )
        return self

    @model_validator(mode="after")
    def _sweeps_can_be_trained(self) -> "Params":
        for name, sweep in self.sweeps.items():
            if sweep.variant not in self.variants:
                raise ValueError(
                    f"sweeps.{name}.variant is {sweep.variant}; it must be one of "
                    f"{', '.join(self.variants)}"
                )
            variant, choices = self.variants[sweep.variant], sweep.choices
            widths = choices.get("hidden", (variant.hidden,))
            for hidden, dropout in product(widths, choices.get("dropout", (variant.dropout,))):
                if dropout is not None and len(hidden) != len(dropout):
                    raise ValueError(
                        f"sweeps.{name}.space: hidden {show(list(hidden))} and dropout "
                        f"{show(list(dropout))}: give one dropout for each hidden layer"
                    )
        return self

    def variant(self, name: str) -> VariantParams:
        """One architecture; `UserError` if there is none of this name."""
        if name not in self.variants:
            raise UserError(
                f"variant {name!r} is not in params.yaml; there are {', '.join(self.variants)}"
            )
        return self.variants[name]


def load(path: Path) -> Params:
    """Read settings that are legal, each by itself and together.

    `UserError` if the file is missing, is no YAML or holds anything that is not legal.
    """
    return validate(read(path), path.name)


def validate(raw: dict[str, Any], source: str) -> Params:
    """Settings that are legal, each by itself and together.

    `UserError` if any is not: a line for each mistake, naming the source, the key, its value and
    what is legal.
    """
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = explain(raw, error, Params)
        raise UserError("\n".join(f"{source}: {line}" for line in lines)) from None


def read(path: Path) -> dict[str, Any]:
    """Read the settings of any commit; `UserError` if the file is missing or no mapping in YAML."""
    content = files.read_bytes(path, f"bring it back with `git checkout {path.name}`")
    try:
        raw = yaml12.parse(content)
    except ValueError as error:
        raise UserError(f"{path.name}: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path.name}: holds {show(raw)}; it must be a mapping of settings")
    return raw
