"""The stage: a line for each run, where to look, and a warning that nobody overlooks."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from synthetic import write_variant

Track = Callable[..., tuple[list[str], str]]


@pytest.fixture
def track(
    workspace: Workspace,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Track:
    """The stage, which runs in the workspace and returns its lines and its warnings."""
    stage = runpy.run_path(str(root / "stages" / "track.py"))
    monkeypatch.setattr(Workspace, "here", lambda: workspace)

    def run(*arguments: str) -> tuple[list[str], str]:
        stage["main"](*arguments)
        told = capsys.readouterr()
        return told.out.splitlines(), told.err

    return run


VARIANTS = ["softmax", "mlp", "dropout"]
STUDIES = ["k_fold/mlp", "weight_decay/decay_0", "weight_decay/decay_3"]
FOLDS = ["k_fold/mlp: child runs published: 2"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], VARIANTS + STUDIES),
        (["mlp"], ["mlp"]),
        (["k_fold", "weight_decay"], STUDIES),
    ],
)
def test_every_run_that_is_asked_for_is_told(
    track: Track, arguments: list[str], names: list[str]
) -> None:
    (*lines, last), warnings = track(*arguments)
    folds = FOLDS if "k_fold/mlp" in names else []
    assert [line.rsplit(" ", 1)[0] for line in lines[: len(names)]] == [
        f"{name}: published, run" for name in names
    ]
    assert lines[len(names) :] == folds
    assert last.startswith("see them: make ui; ") and last.endswith(" refashion publish")
    assert warnings == ""
    again, _ = track(*arguments)
    assert again == [f"runs that were there already: {len(names) + 2 * len(folds)}", last]


def test_unknown_name_is_refused(track: Track) -> None:
    with pytest.raises(UserError, match=r"^mpl: no variant and no study with runs here"):
        track("mpl")


def test_divergence_is_a_warning(track: Track, workspace: Workspace) -> None:
    (first, _), _ = track("mlp")
    write_variant(workspace, "mlp", "another outcome")
    (second, _), warning = track("mlp")
    assert second.startswith("mlp: divergence, run ")
    assert warning.startswith("warning: mlp: ") and warning.count("\n") == 1
    assert first.removeprefix("mlp: published, ") in warning
