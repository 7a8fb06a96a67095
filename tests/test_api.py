"""`import refashion`: models and results of a checkout, from Python."""

import json
import pydoc
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import refashion
from publishing import tell
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.runs import listing
from refashion.tracking import store
from servers import environment
from synthetic import EPOCHS, write_run, write_study, write_workspace


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A checkout with results."""
    workspace = write_workspace(tmp_path_factory.mktemp("checkout"))
    write_study(workspace, "weight_decay", "decay_3")
    return workspace


@pytest.fixture(autouse=True)
def here(checkout: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests stand in it."""
    monkeypatch.setattr(Workspace, "here", lambda: checkout)


def test_model_is_loaded_and_classifies(checkout: Workspace) -> None:
    images = np.load(checkout.test / "images.npy")
    model = refashion.load("mlp")
    assert isinstance(model, refashion.Model)
    assert (model.name, model.source) == ("mlp", str(checkout.root))
    probabilities = model.probabilities(images)
    assert probabilities.shape == (60, 10)
    assert model.predict(images).tolist() == [model.classes[i] for i in probabilities.argmax(1)]
    assert "tensor" not in repr(model)


@pytest.mark.parametrize("name", ["mlp", "weight_decay/decay_3"])
def test_results_are_those_of_the_files(checkout: Workspace, name: str) -> None:
    run = listing.find(checkout, name)
    results = refashion.results(name)
    assert isinstance(results, refashion.Results)
    assert (results.name, results.metrics.name) == (name, name)
    assert results.metrics.to_dict() == run.metrics
    assert results.settings == run.settings
    assert results.history.index.tolist() == list(range(1, EPOCHS + 1))
    assert {"epoch": results.history.index.tolist(), **results.history.to_dict("list")} == (
        run.history
    )


def test_empty_cells_of_a_history_are_nan(checkout: Workspace) -> None:
    folder = checkout.study_folder("weight_decay") / "decay_3"
    history, record = folder / "history.csv", folder / "record.json"
    before = {file: file.read_text() for file in (history, record)}
    files.write_text(history, "epoch,train_loss,l2\n1,0.5,2.0\n2,0.25,\n")
    with pytest.raises(UserError, match=r"history\.csv is not the one that record\.json tells of"):
        refashion.results("weight_decay/decay_3")
    content = json.loads(before[record])
    content["outputs"]["history.csv"] = files.sha256(history)
    record.write_text(json.dumps(content))
    table = refashion.results("weight_decay/decay_3").history
    for file, text in before.items():
        file.write_text(text)
    assert table["train_loss"].tolist() == [0.5, 0.25]
    assert table["l2"].isna().tolist() == [False, True]


def test_a_run_that_diverged_at_once_has_an_empty_history(checkout: Workspace) -> None:
    write_run(checkout, "rates/wild", [], {"diverged_in_epoch": 1})
    results = refashion.results("rates/wild")
    shutil.rmtree(checkout.study_folder("rates"))
    assert results.history.empty and results.metrics["diverged_in_epoch"] == 1


def test_published_run_has_the_same_results(
    checkout: Workspace, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copyfile(empty_database, store.default_database(checkout))
    monkeypatch.setattr(of_run, "draw", lambda run, workspace: {})  # takes seconds
    (done,) = tell(checkout, "mlp")
    of_mlflow, of_files = refashion.results(done.run_id), refashion.results("mlp")
    pd.testing.assert_frame_equal(of_mlflow.history, of_files.history)
    pd.testing.assert_series_equal(of_mlflow.metrics, of_files.metrics)
    assert of_mlflow.settings == of_files.settings
    with pytest.raises(UserError, match=r"^cnn: no run of \S+, and 0 runs in MLflow; give"):
        refashion.results("cnn")


IMPORT = """
import sys
before = set(sys.modules)
import refashion
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*new - sys.stdlib_module_names)
"""


def test_import_alone_imports_no_other_package() -> None:
    command = [sys.executable, "-c", IMPORT]
    assert subprocess.check_output(command, env=environment(), text=True) == "refashion\n"


def test_help_shows_all_that_there_is() -> None:
    assert set(refashion.__all__) <= set(dir(refashion))
    text = pydoc.plain(pydoc.render_doc(refashion))
    for line in ("class Model(", "class Results(", "load(model: ", "results(run: str)"):
        assert line in text
    with pytest.raises(AttributeError, match=r"^module 'refashion' has no attribute 'lod'$"):
        refashion.lod  # noqa: B018
