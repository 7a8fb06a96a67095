"""Where weights start: the study at a small size, against autograd."""

import math
from pathlib import Path
from typing import Any

import pytest

import oracles
import tiny
from refashion.base.errors import UserError
from refashion.data import prepared
from refashion.studies import initialisation
from refashion.training import digest, initial
from refashion.training.engine import Examples
from refashion.training.settings import Settings

SCHEMES = ["constant", "small_normal", "unit_normal", "xavier", "he"]
Norms = dict[tuple[int, int], float]


def run(root: Path, n: int = 60, **changes: Any) -> tiny.Result:
    workspace = tiny.write_data(root, n, 0)
    return tiny.run(initialisation, workspace, tiny.params("initialisation", **changes))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> tiny.Result:
    return run(tmp_path_factory.mktemp("initialisation"))


def settings(scheme: str, depth: int) -> Settings:
    return Settings(hidden=(8,) * depth, seed=5, epochs=2, batch_size=16, initialisation=scheme)


def norms(result: tiny.Result, scheme: str) -> Norms:
    """Of gradients at the start, by depth and layer."""
    rows = result.runs[scheme].table("gradients.csv")
    return {(int(row["depth"]), int(row["layer"])): float(row["norm"]) for row in rows}


def test_every_scheme_is_a_run_on_the_first_images(result: tiny.Result, tmp_path: Path) -> None:
    assert list(result.runs) == SCHEMES == list(initialisation.SCHEMES)
    fewer = run(tmp_path, 40)
    for scheme, own in result.runs.items():
        about = {"depths": 3, "images": 40}
        assert own.record.params == {**settings(scheme, 3).as_dict(), **about}
        assert own.record.data["limit"] == 40 and own.record.parent is None
        assert [len(t.settings.hidden) for t in result.trainings[scheme]] == [1, 2, 3]
        assert own.record.as_dict() == fewer.runs[scheme].record.as_dict()


def test_more_images_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^studies\.initialisation\.images: 61 is more than the 60"
    ):
        run(tmp_path, images=61)


def test_there_is_a_gradient_of_every_scheme_depth_and_layer(result: tiny.Result) -> None:
    lines = ["run,layer,norm"]
    for scheme, own in result.runs.items():
        of_scheme = norms(result, scheme)
        assert list(of_scheme) == [(d, layer) for d in (1, 2, 3) for layer in range(1, d + 2)]
        assert own.metrics["first_gradient"] == of_scheme[3, 1]
        assert own.metrics["last_gradient"] == of_scheme[3, 4]
        lines += [f"{scheme},{layer},{norm}" for (d, layer), norm in of_scheme.items() if d == 3]
    file = result.workspace.study_folder("initialisation") / "gradients.csv"
    assert file.read_text().splitlines() == lines  # of the deepest network alone


@pytest.mark.parametrize("scheme", SCHEMES)
def test_gradients_are_autograds(result: tiny.Result, scheme: str) -> None:
    split = prepared.load(result.workspace.train)
    examples = Examples.of_images(split.images[:40], split.labels[:40])
    for depth in (1, 2, 3):
        gradients = oracles.gradients(initial.of(settings(scheme, depth)), examples)
        want = [float(g.norm()) for name, g in gradients.items() if name.endswith("weight")]
        got = [norm for (d, _), norm in norms(result, scheme).items() if d == depth]
        if scheme == "constant":  # errors of a softmax add up to 0, and equal weights add them
            assert max(want[:-1]) < 1e-12
            assert max(got[:-1]) < 1e-3  # what rounding leaves
            want, got = want[-1:], got[-1:]
        assert got == pytest.approx(want, rel=1e-2)


def test_history_and_metrics_are_those_of_the_trainings(result: tiny.Result) -> None:
    for scheme, own in result.runs.items():
        trainings = result.trainings[scheme]
        losses = {
            f"loss_depth_{depth}": [row.train_loss for row in training.history]
            for depth, training in enumerate(trainings, start=1)
        }
        assert own.history == {"epoch": [1, 2], **losses}
        deepest = trainings[-1]
        columns = {tuple(unit) for unit in deepest.weights["layers.0.weight"].T.tolist()}
        last = deepest.history[-1]
        assert own.metrics["epochs"] == 2
        assert own.metrics["loss"] == last.train_loss
        assert own.metrics["accuracy"] == last.train_accuracy
        # The symmetry of the book (4.8), which no gradient breaks.
        units = 1 if scheme == "constant" else 8
        assert own.metrics["distinct_units"] == len(columns) == units
        if scheme in ("small_normal", "xavier"):
            assert result.headline["deepest_accuracy"][scheme] == last.train_accuracy


def test_small_weights_lose_the_gradient_and_he_keeps_it(tmp_path: Path) -> None:
    runs = run(tmp_path, depths=6, width=24, epochs=1).runs
    first = {scheme: own.metrics["first_gradient"] for scheme, own in runs.items()}
    assert first["small_normal"] < 1e-6 < 0.1 < first["he"] < 100 < first["unit_normal"]


@pytest.mark.parametrize("numerics", ["portable", "native"])
def test_a_network_that_diverges_leaves_a_shorter_history(tmp_path: Path, numerics: str) -> None:
    """Not an error: it is what the study is about."""
    result = run(tmp_path, numerics=numerics, lr=1e10, epochs=3, batch_size=40)
    wild = result.runs["unit_normal"]
    lengths = [len(t.history) for t in result.trainings["unit_normal"]]
    assert lengths[-1] < 3
    if numerics == "portable":  # the same everywhere
        assert lengths == [3, 2, 1]
    columns = {f"loss_depth_{d}": length for d, length in enumerate(lengths, start=1) if length}
    cells = {name: len(column) for name, column in wild.history.items() if name != "epoch"}
    assert cells == columns and len(wild.rows) == max(lengths)
    assert wild.metrics["epochs"] == lengths[-1]
    assert ("loss" in wild.metrics) == ("accuracy" in wild.metrics) == (lengths[-1] > 0)
    for scheme, own in result.runs.items():
        assert len(norms(result, scheme)) == 2 + 3 + 4
        assert all(math.isfinite(value) for value in own.metrics.values())


def test_a_gradient_beyond_all_bounds_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = initialisation._gradient_norms
    monkeypatch.setattr(
        initialisation, "_gradient_norms", lambda *given: [math.nan, *known(*given)[1:]]
    )
    result = run(tmp_path, epochs=1)
    for own in result.runs.values():
        assert "first_gradient" not in own.metrics and "last_gradient" in own.metrics
        first = [row for row in own.table("gradients.csv") if row["layer"] == "1"]
        assert {row["norm"] for row in first} == {""}


def test_a_network_that_diverges_at_once(tmp_path: Path) -> None:
    result = run(tmp_path, lr=1e38, depths=2, epochs=1)
    wild = result.runs["unit_normal"]
    assert wild.rows == [] and wild.metrics["epochs"] == 0
    assert set(wild.metrics) == {"epochs", "first_gradient", "last_gradient", "distinct_units"}
    start = initial.of(settings("unit_normal", 2))
    assert result.trainings["unit_normal"][-1].digest == digest.weights(start)
    assert set(result.headline["deepest_accuracy"]) == {"small_normal", "xavier"}
