"""Settings of the studies, which stand beside the classifiers."""

from typing import Annotated

from pydantic import Field

from refashion.base.params import fields
from refashion.base.params.fields import Strict, up_to


class WeightDecayParams(Strict):
    """Linear regression with more inputs than examples (book, section 4.5)."""

    weight_decays: fields.Penalties  # L2 penalties to set side by side
    train: int = up_to(2**23 - 1)  # training examples; sums over more would not be exact
    test: fields.Count  # test examples
    inputs: int = up_to(4096)  # inputs of every example
    lr: fields.Rate  # learning rate of SGD
    batch_size: fields.Count  # examples per step
    epochs: fields.Count  # passes over the training examples
    seeds: fields.Count  # trainings of each penalty, each on examples of its own


class HouseModelParams(Strict):
    """One model of house prices."""

    hidden: fields.Widths  # widths of the hidden layers; none: linear regression
    optimizer: fields.Optimizer
    lr: fields.Rate  # learning rate
    epochs: fields.Count  # passes over the training houses
    weight_decay: fields.Penalty = 0.0  # L2 penalty on the weights
    log_price: bool = False  # whether to learn the logarithm of the price


class HousePricesParams(Strict):
    """Prediction of house prices, validated on folds (book, section 4.10)."""

    dataset: fields.Houses  # kaggle, as the book has it, or synthetic, which needs no download
    folds: fields.Folds  # of the training houses
    batch_size: fields.Count  # houses per step
    models: Annotated[  # to set side by side; the best of them predicts the submission
        dict[fields.Name, HouseModelParams],
        fields.DistinctNames,
        Field(min_length=1, description="a mapping from names to models, at least one"),
    ]


class InitialisationParams(Strict):
    """Where the weights of deep networks start (book, section 4.8)."""

    depths: int = up_to(32)  # hidden layers of the deepest network, beside all shallower ones
    width: int = up_to(4096)  # units of every hidden layer
    images: fields.Count  # the first so many training images are learnt
    lr: fields.Rate  # learning rate of SGD
    batch_size: fields.Count  # images per step
    epochs: fields.Count  # passes over the images


class KFoldParams(Strict):
    """Validation of every variant on folds of the training images (book, section 4.10)."""

    folds: fields.Folds  # every image is in the validation set of one of them


class StudiesParams(Strict):
    """Settings of every study, each of which has a stage of its name."""

    weight_decay: WeightDecayParams
    house_prices: HousePricesParams
    initialisation: InitialisationParams
    k_fold: KFoldParams
