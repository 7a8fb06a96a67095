from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from refashion.base.errors import UserError
from refashion.evaluation import model
from refashion.runs import listing
from refashion.runs.run import Run
from synthetic import write_workspace


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return listing.variant(write_workspace(tmp_path), "mlp")


def test_weights_of_the_record_are_read(run: Run) -> None:
    weights = model.load(run)
    assert weights["layers.0.weight"].shape == (784, 16)
    torch.testing.assert_close(weights, load_file(run.file("weights.safetensors")), rtol=0, atol=0)


def test_weights_moved_by_one_ulp_are_refused(run: Run) -> None:
    file = run.file("weights.safetensors")
    weights = load_file(file)
    x = weights["layers.0.weight"]
    x[3, 4] = torch.nextafter(x[3, 4], torch.tensor(2.0))
    save_file(weights, file)
    with pytest.raises(UserError, match=r"weights\.safetensors: not the weights that record\.json"):
        model.load(run)


def test_weights_of_another_type_are_refused(run: Run) -> None:
    file = run.file("weights.safetensors")
    save_file({name: x.half() for name, x in load_file(file).items()}, file)
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged \(.*float16\); delete it"):
        model.load(run)


@pytest.mark.parametrize("name", ["weights.safetensors", "record.json"])
def test_missing_files_are_named(run: Run, name: str) -> None:
    run.file(name).unlink()
    with pytest.raises(UserError, match=f"mlp: its {name} is missing; run `dvc repro`"):
        model.load(run)


@pytest.mark.parametrize("text", ["abc", ""])
def test_damaged_weights_are_refused(run: Run, text: str) -> None:
    run.file("weights.safetensors").write_text(text)
    with pytest.raises(UserError, match=r"weights\.safetensors: damaged \(.*\); delete it"):
        model.load(run)
