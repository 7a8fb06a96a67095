"""The examples that ship with the project are what they say, and run."""

import hashlib
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from refashion.base.workspace import Workspace
from refashion.data import prepared
from refashion.serving import predict
from synthetic import write_workspace

PICTURES = {
    "bag": (69, "6572b7cff9478b9cf9fe09ce56912d86602bcf40e4baeed3ab092b755f1eeb5c"),
    "boot": (158, "04a5f36b1d08e591957cfa0aebb48a6b02b2e8834382b4875ce804e1debe607a"),
    "shirt": (265, "73f50c68c93601cf2c2b877f5db99a9707a0379890eece4a1f35f5ce96a87a77"),
}
"""Number of each among the test images of Fashion-MNIST, and SHA-256 of its pixels there."""


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_of_the_test_set(name: str, root: Path) -> None:
    pixels = predict.read(root / "examples" / f"{name}.png")
    number, digest = PICTURES[name]
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == digest
    here = Workspace.here()
    if here.test.exists() and here.params().data.dataset == "fashion_mnist":  # after `make repro`
        assert np.array_equal(pixels.ravel(), prepared.load(here.test).images[number])


def test_request_is_the_picture(root: Path) -> None:
    request = json.loads((root / "examples" / "boot.json").read_text())
    assert request == {"inputs": [predict.read(root / "examples" / "boot.png").tolist()]}


def test_notebook_runs(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout with small results; its code stands there without outputs."""
    checkout = write_workspace(tmp_path)
    monkeypatch.setattr(Workspace, "here", lambda: checkout)
    monkeypatch.chdir(root / "examples")
    matplotlib.use("Agg")
    cells = json.loads(Path("classifiers.ipynb").read_text())["cells"]
    variables: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec("".join(cell["source"]), variables)
    assert len(plt.get_fignums()) == 4
    assert variables["by_class"].shape == (10, 3)
    plt.close("all")
