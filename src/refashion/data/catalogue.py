"""The data sets of the pipeline: images of one format and size in ten classes, and houses."""

from dataclasses import dataclass

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
"""Names of the images and of the labels of either part, as MNIST named them."""

DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """What is known of a data set before its files are here."""

    classes: tuple[str, ...]
    """Display names of the ten classes, in the order of their labels."""

    torchvision: str | None = None
    """Class of ``torchvision.datasets`` that knows mirrors; none: made from scikit-learn's."""

    checksums: tuple[str, ...] = ()
    """MD5 (hexadecimal) of the files, in the order of `FILES`, as torchvision pins them."""

    authors: tuple[str, ...] = ()
    """Folders (URLs) in which the authors keep the same files, besides torchvision's mirrors."""


DATASETS = {
    "fashion_mnist": Dataset(
        classes=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        torchvision="FashionMNIST",
        checksums=(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        authors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    "mnist": Dataset(
        classes=DIGITS,
        torchvision="MNIST",
        checksums=(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "kmnist": Dataset(
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        torchvision="KMNIST",
        checksums=(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
    "digits": Dataset(classes=DIGITS),
}
"""Name in ``params.yaml`` -> data set."""

HOUSE_FILES = {"train": "kaggle_house_pred_train.csv", "test": "kaggle_house_pred_test.csv"}
"""Tables of houses with prices, and of those whose prices are asked for."""

HOUSE_CHECKSUMS = {
    HOUSE_FILES["train"]: "585e9cc93e70b39160e7921475f9bcd7d31219ce",
    HOUSE_FILES["test"]: "fa19780a7b011d9b009e8bff8e99922a8ee2eb90",
}
"""SHA-1 (hexadecimal), as the book pins them."""

HOUSE_MIRRORS = ("http://d2l-data.s3-accelerate.amazonaws.com/",)
"""Folders (URLs) in which the book keeps the tables of Kaggle's "House Prices" (De Cock 2011)."""
