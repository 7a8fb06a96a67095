"""The runs that are meant are found, and a text that means nothing is told."""

import pytest

from refashion.base.errors import UserError
from refashion.reporting.choice import choose
from refashion.tracking import store


def chosen(*texts: str, experiment: str | None = None, tag: str | None = None) -> set[str]:
    with store.connect(reading=True) as found:
        runs = [run.info.run_id for run in choose(texts, experiment, tag, found)]
    assert len(runs) == len(set(runs))
    return set(runs)


def test_runs_are_found_each_once(ids: dict[str, str]) -> None:
    one, hake = ids["main mlp"], {ids["seed 1 mlp"], ids["seed 2 mlp"]}
    assert chosen(one[:8], one) == {one}
    assert chosen(one, "puffy-hake") == {one, *hake}
    assert chosen(experiment="puffy-hake") == hake
    assert chosen(experiment="mnist", tag="dvc_exp=puffy-hake") == hake | {
        run_id for name, run_id in ids.items() if name.startswith("mnist")
    }
    assert chosen(tag="variant=softmax") == {ids["main softmax"], ids["mnist softmax"]}


def test_what_means_nothing_is_told(ids: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"^dead-cod: there is no such run at sqlite:.*; see all"):
        chosen(ids["main mlp"], "dead-cod")
    with pytest.raises(UserError, match=r"^experiment kmnist: there is no such run"):
        chosen(experiment="kmnist")
    with pytest.raises(UserError, match=r"^tag variant=cnn: there is no such run"):
        chosen(tag="variant=cnn")
