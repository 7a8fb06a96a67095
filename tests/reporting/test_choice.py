"""The runs that are meant are found, and a text that means nothing is told."""

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reporting.choice import choose
from refashion.tracking import store


def chosen(
    workspace: Workspace, *texts: str, experiment: str | None = None, tag: str | None = None
) -> set[str]:
    with store.connect(workspace, reading=True) as connected:
        runs = [run.info.run_id for run in choose(texts, experiment, tag, connected)]
    assert len(runs) == len(set(runs))
    return set(runs)


def test_runs_are_found_each_once(main: Workspace, ids: dict[str, str]) -> None:
    one, hake = ids["main mlp"], {ids["seed 1 mlp"], ids["seed 2 mlp"]}
    assert chosen(main, one[:8], one) == {one}
    assert chosen(main, one, "puffy-hake") == {one, *hake}
    assert chosen(main, experiment="puffy-hake") == hake
    assert chosen(main, experiment="mnist", tag="dvc_exp=puffy-hake") == hake | {
        run_id for name, run_id in ids.items() if name.startswith("mnist")
    }
    assert chosen(main, tag="name=softmax") == {ids["main softmax"], ids["mnist softmax"]}


def test_what_means_nothing_is_told(main: Workspace, ids: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"^dead-cod: there is no such run at sqlite:.*; see all"):
        chosen(main, ids["main mlp"], "dead-cod")
    with pytest.raises(UserError, match=r"^experiment kmnist: there is no such run"):
        chosen(main, experiment="kmnist")
    with pytest.raises(UserError, match=r"^tag name=cnn: there is no such run"):
        chosen(main, tag="name=cnn")
