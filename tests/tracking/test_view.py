"""Names tell runs apart, and descriptions point to what there is."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.runs.run import Run
from refashion.tracking import view
from synthetic import write_sweep


def changed(run: Run, folder: Path, **params: Any) -> Run:
    """A run with other settings."""
    record = replace(run.record, params={**run.record.params, **params})
    files.write_json(folder / "record.json", record.as_dict())
    return replace(run, folders=(folder,))


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "mlp"),
        ({"lr": 0.03}, "mlp lr=0.03"),
        ({"lr": 0.03, "hidden": [512, 256]}, "mlp hidden=[512, 256] lr=0.03"),
        ({"dropout": [0.0, 0.0]}, "mlp"),  # no dropout, in however many layers
        ({"dropout": [0.5]}, "mlp dropout=[0.5]"),
        ({"seed": 1, "optimizer": "adam"}, "mlp optimizer=adam seed=1"),
        ({"hidden": [256] * 40}, "mlp hidden=[" + "256, " * 13 + "..."),
    ],
)
def test_a_name_tells_what_differs_from_the_commit(
    workspace: Workspace, tmp_path: Path, params: dict[str, Any], name: str
) -> None:
    run = listing.variant(workspace, "mlp")
    committed = changed(run, tmp_path / "committed", dropout=[0.0])
    content = committed.file("record.json").read_bytes()
    assert view.run_name(changed(committed, tmp_path / "now", **params), (), content) == name


@pytest.mark.parametrize("committed", [b"", b"{}", b"no JSON", b'{"layout": 2}'])
def test_a_new_variant_has_its_own_name_alone(workspace: Workspace, committed: bytes) -> None:
    assert view.run_name(listing.variant(workspace, "mlp"), (), committed) == "mlp"
    alone = listing.find(workspace, "k_fold/mlp.fold_1")
    assert view.run_name(alone, (), committed) == "mlp.fold_1"


def test_parts_are_named_by_what_differs_among_them(workspace: Workspace) -> None:
    study = listing.of_study(workspace, "k_fold")
    swept = listing.swept(workspace, "k_fold")
    assert swept == {"k_fold/mlp": ["weight_decay"]}
    names = [view.run_name(run, swept["k_fold/mlp"], b"") for run in study]
    assert names == ["mlp", "mlp weight_decay=1.0", "mlp weight_decay=2.0"]
    description, of_part = (view.run_description(r, swept["k_fold/mlp"], "id") for r in study[:2])
    assert "Its child runs differ in weight_decay." in description
    assert "child runs" not in of_part
    columns = json.loads(view.experiment_tags(study[0], swept["k_fold/mlp"])[view.TAG])
    assert "params.`weight_decay`" in columns["selectedColumns"]


@pytest.mark.parametrize("name", ["mlp", "k_fold/mlp"])
def test_the_readme_has_the_sections_that_are_named(workspace: Workspace, name: str) -> None:
    readme = (Workspace.here().root / "README.md").read_text()
    run = listing.find(workspace, name)
    texts = [view.run_description(run, (), "id"), *view.experiment_tags(run, ()).values()]
    sections = [part for text in texts for part in text.split("*")[1::2] if "README" in text]
    assert {f"## {section}" for section in sections if section[0].isupper()} - {
        "## Dive into Deep Learning"
    } <= set(readme.splitlines())


def test_the_run_that_sums_a_sweep_up_tells_of_the_best(workspace: Workspace) -> None:
    write_sweep(workspace, "rates", 0.5, None, 0.625)
    description = view.run_description(listing.find(workspace, "rates/mlp"), ("lr",), "id")
    assert (
        "3 trials (grid): lr 0.1, 0.2, 0.3. The best is trial 3 (lr=0.3): validation accuracy "
        "0.6250, test accuracy 0.7500. Diverged: 1.\n" in description
    )
    assert "trials" not in view.run_description(
        listing.find(workspace, "rates/mlp.trial_1"), ("lr",), "id"
    )


def test_intervals_and_long_lists_are_told_in_short(workspace: Workspace) -> None:
    write_sweep(workspace, "rates", 0.5)
    run = listing.find(workspace, "rates/mlp")
    space = {"lr": {"log": [1e-3, 10.0]}, "hidden": [[], [8]] * 20}
    told = view.summary(changed(run, run.folders[0], space=space))
    assert "(grid): hidden [], [8], [], " in told
    assert " ...; lr from 0.001 to 10 (log). The best is trial 1 (lr=0.1): " in told
    assert len(told) < 300
