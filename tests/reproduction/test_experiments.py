"""Sweeps from the command line."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import experiments, pipeline


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("lr=0.05,0.1", [0.05, 0.1]),
        ("lr=1e-4", [1e-4]),
        ("lr=interval(0.1,1)", {"uniform": [0.1, 1.0]}),
        ("lr=tag(log,interval(0.01,1))", {"log": [0.01, 1.0]}),
        ("seed=range(0,3)", {"range": [0, 3, 1]}),
        ("hidden=[],[256],[256,128]", [[], [256], [256, 128]]),
        ("dropout=null,[0.1]", [None, [0.1]]),
        ("lr='a',[\"b\"]", ["a", ["b"]]),
    ],
)
def test_overrides_are_read_as_dvc_reads_them(override: str, values: Any) -> None:
    name, _, _ = override.partition("=")
    _, sweep = experiments.define("mlp", [override], search="grid", trials=None)
    assert sweep == {"variant": "mlp", "space": {name: values}, "search": "grid"}


def test_the_name_follows_from_the_sweep() -> None:
    overrides = ["lr=0.05,0.1", "seed=range(0,3)"]
    first, _ = experiments.define("mlp", overrides)
    assert first.startswith("mlp-") and first == experiments.define("mlp", reversed(overrides))[0]
    others = [("softmax", overrides, None), ("mlp", overrides[:1], None), ("mlp", overrides, 9)]
    names = {experiments.define(v, o, trials=trials)[0] for v, o, trials in others}
    assert len({first, *names}) == 4
    assert len(experiments.define("v" * 64, overrides)[0]) == 64  # as names may have


@pytest.mark.parametrize(
    "override",
    ["", "lr", "~lr", "+lr=1", "lr=0.1,", "lr=[", "x y=1", "lr=f(1)", "lr={1:a,b:2}", "lr@x=1"],
)
def test_what_cannot_be_read_is_said_in_one_line(override: str) -> None:
    with pytest.raises(UserError, match="cannot be read") as caught:
        experiments.define("mlp", [override])
    assert "\n" not in str(caught.value)


def test_a_setting_is_named_once() -> None:
    with pytest.raises(UserError, match="lr is given twice"):
        experiments.define("mlp", ["lr=0.1", "lr=0.2"])


@pytest.mark.parametrize("definition", [None, {"variant": "mlp", "space": {"lr": [0.2]}}])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("exps/run/workspace/workspace.json", {"pid": os.getpid()}),
        ("rwlock", {"write": {"data": {"pid": os.getpid(), "cmd": "dvc repro"}}}),
        ("a sweep", None),
    ],
)
def test_a_second_sweep_in_a_workspace_is_refused(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    definition: Any,
    name: str,
    content: Any,
) -> None:
    """It would change the settings under the first, or the first under it."""
    shutil.copy(root / "params.yaml", tmp_path)
    workspace, run = Workspace(tmp_path), []
    monkeypatch.setattr(pipeline, "run", lambda *_: run.append(1) or True)
    monkeypatch.setattr(experiments.revisions, "experiments", lambda _: {})
    sweep = "lr_and_decay" if definition is None else "own"
    experiments.sweep(workspace, sweep, definition)
    first = nullcontext() if content else experiments._alone(workspace)
    if content:
        file = tmp_path / ".dvc" / "tmp" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    run.clear()
    with first, pytest.raises(UserError, match="wait for its end"):
        experiments.sweep(workspace, sweep, definition)
    assert not run
