"""Runs are found by what people call them, and read back whole or not at all."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mlflow.entities import Run

from refashion import selftest
from refashion.base import files, paths
from refashion.base.errors import UserError
from refashion.tracking import publish, runs, store
from refashion.tracking.context import Context
from refashion.tracking.results import Results
from refashion.tracking.store import Store
from refashion.training import loop, record

CONTEXT = Context(
    commit="c" * 40, diff=b"a diff\n", experiment="puffy-hake", baseline=None, environment=""
)


@pytest.fixture
def connected(checkout: Path) -> Iterator[Store]:
    """A store with the runs of two variants, one of them really trained."""
    settings = dataclasses.replace(selftest.INSTANCES["mlp"], epochs=1)
    data = selftest.examples(torch.device("cpu"))
    split = SimpleNamespace(images=data.inputs.numpy(), labels=data.targets.numpy().astype("uint8"))
    results = Results(root=checkout, variant="mlp")
    record.save(
        loop.train(settings, split, split, device="cpu"),
        variant="mlp",
        settings=settings,
        inputs=results.record["inputs"],
        weights=results.file(paths.weights("mlp")),
        history=results.file(paths.history("mlp")),
        record=results.file(paths.record("mlp")),
        log=results.file(paths.training_log("mlp")),
    )
    with store.connect() as found:
        for variant in ("mlp", "softmax"):
            publish.publish(Results(root=checkout, variant=variant), CONTEXT, found)
        yield found


def of_mlp(connected: Store) -> Run:
    return runs.with_tag("variant", "mlp", connected)[0]


def test_found_by_id_beginning_and_experiment(connected: Store) -> None:
    run = of_mlp(connected)
    for text in (run.info.run_id, run.info.run_id[: runs.SHORTEST]):
        assert [found.info.run_id for found in runs.find(text, connected)] == [run.info.run_id]
    assert [r.data.tags["variant"] for r in runs.find("puffy-hake", connected)] == [
        "mlp",
        "softmax",
    ]
    for nothing in ("puffy", run.info.run_id[:5], "0" * 32):
        assert runs.find(nothing, connected) == []
    connected.client.set_tag(run.info.run_id, "published", "elsewhere 1 1")
    assert runs.find(run.info.run_id, connected) == []  # not whole yet


def test_read_back_as_it_was(connected: Store, checkout: Path, tmp_path: Path) -> None:
    found = runs.read(of_mlp(connected), tmp_path / "run", connected)
    own = Results(root=checkout, variant="mlp")
    assert (found.record, found.metrics, found.history) == (own.record, own.metrics, own.history)
    assert found.data == own.data
    assert found.log == own.log and found.log is not None
    assert found.artifact("uncommitted.diff").read_bytes() == b"a diff\n"
    with pytest.raises(UserError, match=r"its artifact nothing\.txt is missing"):
        found.artifact("nothing.txt")


@pytest.mark.parametrize(
    "name", ["record.json", "weights.safetensors", "history.csv", "metrics.json", "predictions.csv"]
)
def test_an_altered_artifact_is_refused(connected: Store, tmp_path: Path, name: str) -> None:
    run = of_mlp(connected)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / name
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{run.info.run_id}: its artifact .*{name}.* altered"):
        runs.read(run, tmp_path / "run", connected)


def test_a_record_that_tells_of_other_settings_is_refused(connected: Store, tmp_path: Path) -> None:
    """Also where its key has been made to fit."""
    run = of_mlp(connected)
    file = Path(run.info.artifact_uri.removeprefix("file://")) / "record.json"
    told = json.loads(file.read_text())
    told["params"]["lr"] = 0.25
    determined = {k: told[k] for k in ("contract", "inputs", "params", "variant")}
    files.write_json(file, {**told, "run_key": record.run_key(determined)})
    with pytest.raises(UserError, match=r"record\.json was altered"):
        runs.read(run, tmp_path / "run", connected)
