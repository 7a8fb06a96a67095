"""Data sets that need no download."""

import numpy as np

from refashion.data import idx
from refashion.data.catalogue import FILES, HOUSE_FILES
from refashion.data.houses import ID, PRICE

NUM_DIGITS_TRAIN = 1500
NUM_HOUSES = {"train": 240, "test": 60}
QUARTERS = ("Hill", "Harbour", "Mill")


def digits() -> dict[str, bytes]:
    """MNIST's four files, made of scikit-learn's 8 x 8 digits: name -> content, gzipped IDX.

    Every pixel becomes a block of 3 x 3 inside a margin of 2, its value 0 to 16 the nearest in
    0 to 255. The first 1,500 images are for training, the last 297 for the test.
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
    """Small tables of house prices, drawn at random once and for all: name -> content, CSV."""
    from refashion.portable import streams  # imports torch: for these tables alone

    key = streams.key(0, streams.Purpose.EXAMPLES)
    numbers = streams.normal((4, sum(NUM_HOUSES.values())), key)
    rows = [[ID, "Area", "Age", "Quarter", PRICE]]
    for i, (area, age, luck, choice) in enumerate(numbers.T.tolist()):
        square_feet, years = round(1500 + 400 * area), round(40 + 15 * age)
        quarter = QUARTERS[int(abs(choice) * 2) % 3]
        price = 1000 * round(60 + square_feet // 12 - years // 2 + 15 * luck)
        known_years = "NA" if i % 9 == 4 else str(years)
        known_quarter = "NA" if i % 11 == 7 else quarter
        rows.append([str(i + 1), str(square_feet), known_years, known_quarter, str(price)])
    first = 1 + NUM_HOUSES["train"]
    tables = {"train": rows[:first], "test": [row[:-1] for row in (rows[0], *rows[first:])]}
    return {
        HOUSE_FILES[part]: "".join(",".join(row) + "\n" for row in table).encode()
        for part, table in tables.items()
    }
