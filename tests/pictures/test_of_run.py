"""A run is drawn as far as its files reach."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from refashion.base.workspace import Workspace
from refashion.pictures import figures, of_run, studies
from refashion.runs import listing
from refashion.runs.run import Run, in_folder
from synthetic import write_evaluation, write_run, write_sweep, write_workspace

ALL = [
    *("learning_curves", "calibration", "confusion_matrix"),
    *("confident_mistakes", "predictions", "first_layer"),
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = write_workspace(tmp_path_factory.mktemp("workspace"))
    write_evaluation(workspace, "softmax", wrong=0)
    return workspace


def test_a_variant_has_every_picture(workspace: Workspace) -> None:
    run = listing.variant(workspace, "mlp")
    drawn = of_run.of_files(run, workspace.test)
    assert list(drawn) == ALL
    assert all(f.get_suptitle().startswith("mlp on fashion_mnist: ") for f in drawn.values())
    again = {name: figures.png(figure) for name, figure in drawn.items()}
    assert of_run.draw(run, workspace) == again


@pytest.mark.parametrize(
    ("variant", "test", "missing", "left_out"),
    [
        ("softmax", "data/prepared/test", None, {"confident_mistakes"}),  # there are none
        ("mlp", "data/prepared/train", None, {"confident_mistakes", "predictions"}),
        ("mlp", "nowhere", None, {"confident_mistakes", "predictions"}),
        *(
            ("mlp", "data/prepared/test", file, left_out)
            for file, left_out in {
                "weights.safetensors": {"first_layer"},
                "history.csv": {"learning_curves"},
                "calibration.csv": {"calibration"},
                "predictions.csv": {"confusion_matrix", "confident_mistakes", "predictions"},
            }.items()
        ),
    ],
)
def test_what_there_is_nothing_to_draw_from_is_left_out(
    workspace: Workspace, tmp_path: Path, variant: str, test: str, missing: str, left_out: set[str]
) -> None:
    for file in listing.variant(workspace, variant).files:
        if file.name != missing:
            shutil.copy(file, tmp_path)
    drawn = of_run.of_files(in_folder(tmp_path, variant), workspace.root / test)
    assert set(ALL) - set(drawn) == left_out


def write_fold(workspace: Workspace, accuracy: float) -> list[Run]:
    """Runs of a study: a variant, and its only fold."""
    row = {"train_loss": 1.0, "train_accuracy": 0.5, "validation_accuracy": accuracy}
    metrics = {**row, "validation_accuracy_std": 0.1, "folds": 1}
    write_run(workspace, "k_fold/mlp", [row], metrics)
    write_run(workspace, "k_fold/mlp.fold_1", [row], row, parent="k_fold/mlp")
    return listing.of_study(workspace, "k_fold")


def test_a_run_of_a_study_has_the_picture_of_all(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    variant, fold = write_fold(workspace, 0.5)
    assert list(of_run.draw(variant, workspace)) == ["learning_curves", "k_fold"]
    assert of_run.draw(fold, workspace) == {}  # the variant shows it


def test_a_study_is_drawn_once_until_its_results_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path)
    drawn: list[Run] = []

    def draw(runs: Sequence[Run]) -> Figure:
        drawn.append(runs[0])
        return studies.k_fold(runs)

    monkeypatch.setitem(studies.PICTURES, "k_fold", draw)
    first, second, third = (
        of_run.draw(write_fold(workspace, accuracy)[0], workspace)["k_fold"]
        for accuracy in (0.6, 0.6, 0.7)
    )
    assert first == second != third
    assert len(drawn) == 2


def test_the_run_that_sums_a_sweep_up_has_the_pictures_of_all_trials(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    write_sweep(workspace, "rates", 0.5, 0.75, None)
    whole, *_ = runs = listing.of_study(workspace, "rates")
    drawn = studies.draw("rates", runs)
    measures = ("validation_accuracy", "validation_loss", "learning_curves")
    assert list(drawn) == [f"trials_{name}" for name in measures]
    assert set(drawn) < set(of_run.draw(whole, workspace))
    texts = [text.get_text() for text in drawn["trials_validation_loss"].legends[0].get_texts()]
    assert texts == ["diverged: 1 of 3", f"best: mlp.trial_{whole.metrics['best_trial']}"]


def test_a_sweep_that_was_killed_while_its_runs_were_written(tmp_path: Path) -> None:
    write_sweep(Workspace(tmp_path), "rates", 0.5, 0.75)
    whole, first, _ = listing.of_study(Workspace(tmp_path), "rates")
    assert studies.draw("rates", [whole]) == studies.draw("rates", [first]) == {}
    assert list(studies.draw("rates", [whole, first])) == ["trials_learning_curves"]
