"""Settings of the studies, which stand beside the classifiers."""

from typing import Annotated

from pydantic import Field

from refashion.base.params.fields import (
    Count,
    DistinctFiles,
    Folds,
    Houses,
    Name,
    Optimizer,
    Penalties,
    Penalty,
    Rate,
    Strict,
    Widths,
    one_of,
)


class WeightDecayParams(Strict):
    """Linear regression with more inputs than examples (book, section 4.5)."""

    weight_decays: Penalties
    """The penalties to set side by side."""

    train: Count
    """Training examples."""

    test: Count
    """Test examples."""

    inputs: Annotated[int, Field(ge=1, le=4096, description="an integer from 1 to 4096")]
    """Inputs of every example."""

    lr: Rate
    """Learning rate of SGD."""

    batch_size: Count
    """Examples per step."""

    epochs: Count
    """Passes over the training examples."""

    seeds: Count
    """Trainings of each penalty, each on examples of its own."""


class HouseModelParams(Strict):
    """One model of house prices."""

    hidden: Widths
    """Widths of the hidden layers; none: linear regression."""

    optimizer: Optimizer = one_of(Optimizer)
    """``adam`` or ``sgd``."""

    lr: Rate
    """Learning rate."""

    epochs: Count
    """Passes over the training houses."""

    weight_decay: Penalty = 0.0
    """L2 penalty on the weights."""

    log_price: bool = Field(False, description="true or false")
    """Whether to learn the logarithm of the price instead of the price."""


class HousePricesParams(Strict):
    """Prediction of house prices, validated on folds (book, section 4.10)."""

    dataset: Houses = one_of(Houses)
    """``kaggle``, as the book has it, or ``made_up``, which needs no download."""

    folds: Folds
    """Of the training houses."""

    batch_size: Count
    """Houses per step."""

    models: Annotated[dict[Name, HouseModelParams], DistinctFiles] = Field(
        min_length=1, description="a mapping from names to models, at least one"
    )
    """The models to set side by side; the best of them predicts the submission."""


class InitialisationParams(Strict):
    """Where the weights of deep networks start (book, section 4.8)."""

    depths: Annotated[int, Field(ge=1, le=32, description="an integer from 1 to 32")]
    """Hidden layers of the deepest network; there is one of every depth up to it."""

    width: Annotated[int, Field(ge=1, le=4096, description="an integer from 1 to 4096")]
    """Units of every hidden layer."""

    images: Count
    """The first so many training images are learnt."""

    lr: Rate
    """Learning rate of SGD."""

    batch_size: Count
    """Images per step."""

    epochs: Count
    """Passes over the images."""


class KFoldParams(Strict):
    """Validation of every variant on folds of the training images (book, section 4.10)."""

    folds: Folds
    """Every image is in the validation set of one of them."""


class StudiesParams(Strict):
    """Every study has a stage of its name."""

    weight_decay: WeightDecayParams = Field(description="a mapping of the study's settings")
    """See its class, as for the others."""

    house_prices: HousePricesParams = Field(description="a mapping of the study's settings")
    initialisation: InitialisationParams = Field(description="a mapping of the study's settings")
    k_fold: KFoldParams = Field(description="a mapping of folds")
