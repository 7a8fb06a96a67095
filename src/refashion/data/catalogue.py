"""The data sets of the pipeline: images of one format and size in ten classes, and houses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

VARIABLE = "REFASHION_DATA"
"""Environment variable that names a folder with the files (relative: to the user's checkout)."""

FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
"""Part -> names of its images and of its labels, as MNIST named them."""

HOUSE_FILES = {"train": "kaggle_house_pred_train.csv", "test": "kaggle_house_pred_test.csv"}
"""Part -> name of its table; only the training houses have prices."""

DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A data set: its classes, its official files and where to get them."""

    classes: tuple[str, ...] = ()
    """Display names of the classes, in the order of their labels; houses have none."""

    title: str = ""
    """Name of the official files in messages and, with ``-`` for ``_``, of folders with them."""

    checksums: Mapping[str, str] = field(default_factory=dict)
    """Official file -> MD5 or SHA-1 (hexadecimal); empty: `refashion.data.synthetic` makes all."""

    torchvision: str | None = None
    """Class of ``torchvision.datasets`` that knows mirrors."""

    mirrors: tuple[str, ...] = ()
    """Folders (URLs) in which the authors keep the same files, besides torchvision's mirrors."""


def _images(*md5: str) -> dict[str, str]:
    return dict(zip((name for pair in FILES.values() for name in pair), md5, strict=True))


DATASETS = {
    "fashion_mnist": Dataset(
        classes=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        title="fashion_mnist",
        torchvision="FashionMNIST",
        checksums=_images(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    "mnist": Dataset(
        classes=DIGITS,
        title="mnist",
        torchvision="MNIST",
        checksums=_images(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "kmnist": Dataset(
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        title="kmnist",
        torchvision="KMNIST",
        checksums=_images(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
    ),
    "digits": Dataset(classes=DIGITS),
}
"""Name in ``params.yaml`` -> images, with the checksums that torchvision pins."""

HOUSES = {
    "kaggle": Dataset(
        title="house_prices",
        checksums={
            HOUSE_FILES["train"]: "585e9cc93e70b39160e7921475f9bcd7d31219ce",
            HOUSE_FILES["test"]: "fa19780a7b011d9b009e8bff8e99922a8ee2eb90",
        },
        mirrors=("http://d2l-data.s3-accelerate.amazonaws.com/",),
    ),
    "synthetic": Dataset(),
}
"""Name in ``params.yaml`` -> tables of house prices; Kaggle's "House Prices" (De Cock 2011) with
the checksums and the mirror of the book."""
