"""The data sets of the pipeline: one format, one size, ten classes each."""

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
    """Class of ``torchvision.datasets`` that pins the files; none: made from scikit-learn's."""

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
        authors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
    ),
    "mnist": Dataset(classes=DIGITS, torchvision="MNIST"),
    "kmnist": Dataset(
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        torchvision="KMNIST",
    ),
    "digits": Dataset(classes=DIGITS),
}
"""Name in ``params.yaml`` -> data set."""
