from pathlib import Path

import pytest

from refashion.base.errors import UserError
from refashion.evaluation import predictions


def test_reads_what_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    predictions.write(path, ["T-shirt/top", "Bag"], ["Shirt", "Bag"], [0.1, 1 / 3])
    assert path.read_text() == (
        "index,actual,predicted,confidence\n0,T-shirt/top,Shirt,0.1\n1,Bag,Bag,0.3333333333333333\n"
    )
    read = predictions.read(path)
    assert read.actual == ("T-shirt/top", "Bag")
    assert read.predicted == ("Shirt", "Bag")
    assert read.correct == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "index,actual,predicted,confidence\n",
        "index,actual,predicted\n0,a,b\n",
        "index,actual,predicted,confidence\n0,a,b,0.5\n1,a\n",
    ],
)
def test_other_forms_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=r"predictions.csv: not rows of index,actual"):
        predictions.read(path)
