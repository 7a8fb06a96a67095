"""Data sets that need no download."""

import csv
import io

import numpy as np

from refashion.data import idx
from refashion.data.catalogue import FILES, HOUSE_FILES
from refashion.data.houses import ID, PRICE

NUM_DIGITS_TRAIN = 1500
NUM_HOUSES = {"train": 240, "test": 60}
QUARTERS = ("Hill", "Harbour", "Mill")


def digits() -> dict[str, bytes]:
    """MNIST's four files, made of scikit-learn's 8 x 8 digits.

    Every pixel becomes a block of 3 x 3 inside a margin of 2, its value 0 to 16 the nearest in
    0 to 255. The first 1,500 images are for training, the last 297 for the test.

    Returns
    -------
    dict
        Name of each file -> its content, gzipped IDX.
    """
    from sklearn.datasets import load_digits  # 1 s: for this data set alone

    values, labels = load_digits(return_X_y=True)
    pixels = ((values.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8)
    images = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    rows = {"train": slice(NUM_DIGITS_TRAIN), "test": slice(NUM_DIGITS_TRAIN, None)}
    contents = {}
    for part, (images_name, labels_name) in FILES.items():
        contents[images_name] = idx.pack(images[rows[part]])
        contents[labels_name] = idx.pack(labels[rows[part]].astype(np.uint8))
    return contents


def houses() -> dict[str, bytes]:
    """Small tables of house prices, drawn at random once and for all.

    Returns
    -------
    dict
        Name of each file -> its content, CSV.
    """
    from refashion.portable import streams  # imports torch: for these tables alone

    n = sum(NUM_HOUSES.values())
    key = streams.key(0, streams.Purpose.EXAMPLES)
    area, age, luck, choice = streams.normal((4, n), key).tolist()
    contents, first = {}, 0
    for part, size in NUM_HOUSES.items():
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        header = (ID, "Area", "Age", "Quarter", PRICE)
        table.writerow(header if part == "train" else header[:-1])
        for i in range(first, first + size):
            square_feet, years = round(1500 + 400 * area[i]), round(40 + 15 * age[i])
            quarter = QUARTERS[int(abs(choice[i]) * 2) % 3]
            price = 1000 * round(60 + square_feet // 12 - years // 2 + 15 * luck[i])
            row = (
                *(i + 1, square_feet, "NA" if i % 9 == 4 else years),
                *("NA" if i % 11 == 7 else quarter, price),
            )
            table.writerow(row if part == "train" else row[:-1])
        contents[HOUSE_FILES[part]] = text.getvalue().encode()
        first += size
    return contents
