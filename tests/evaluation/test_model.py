import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from refashion.base.errors import UserError
from refashion.evaluation import model
from refashion.training import digest


@pytest.fixture
def left(tmp_path: Path) -> tuple[Path, Path]:
    """Weights and record of a training of one layer."""
    tensors = {"layers.0.weight": torch.ones(784, 10), "layers.0.bias": torch.zeros(10)}
    weights, record = tmp_path / "weights.safetensors", tmp_path / "record.json"
    save_file(tensors, weights)
    record.write_text(json.dumps({"outputs": {"weights": digest.weights(tensors)}}))
    return weights, record


def test_weights_of_the_record_are_read(left: tuple[Path, Path]) -> None:
    tensors = model.load(*left)
    assert tensors["layers.0.weight"].sum() == 7840


def test_weights_moved_by_one_ulp_are_refused(left: tuple[Path, Path]) -> None:
    tensors = model.load(*left)
    tensors["layers.0.weight"][3, 4] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    save_file(tensors, left[0])
    with pytest.raises(UserError, match=r"weights\.safetensors: not the weights that record\.json"):
        model.load(*left)


@pytest.mark.parametrize("which", [0, 1])
def test_missing_files_are_named(left: tuple[Path, Path], which: int) -> None:
    left[which].unlink()
    with pytest.raises(UserError, match=f"{left[which].name}: there is no such file"):
        model.load(*left)


@pytest.mark.parametrize(
    ("which", "text"), [(0, "abc"), (0, ""), (1, "{"), (1, "{}"), (1, '{"outputs": 3}')]
)
def test_damaged_files_are_refused(left: tuple[Path, Path], which: int, text: str) -> None:
    left[which].write_text(text)
    with pytest.raises(UserError, match="its files are damaged"):
        model.load(*left)
