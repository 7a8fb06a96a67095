"""No pickle is ever read: payloads that would leave a mark do not, whatever file they lie in."""

import ast
import hashlib
import io
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.data import idx, prepared
from refashion.evaluation import model
from refashion.reproduction import verdict
from refashion.runs import listing, run
from refashion.runs.checkpoint import Checkpoint
from refashion.serving import predict
from refashion.studies.trials import Done
from refashion.training.loop import State
from refashion.training.settings import Settings
from synthetic import write_workspace

HERE = Workspace.here()
UNSAFE = {"pickle", "cloudpickle", "dill", "joblib.load", "marshal", "shelve", "torch.load"}
UNSAFE |= {"numpy.load", "np.load", "pandas.read_pickle", "yaml.unsafe_load", "yaml.full_load"}


def test_no_code_asks_for_a_pickle() -> None:
    """Beside joblib and Ray, whose processes send pickles to their own."""
    for file in [*HERE.root.glob("src/**/*.py"), *HERE.root.glob("stages/**/*.py")]:
        names = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Attribute):
                names.add(ast.unparse(node))
        assert names.isdisjoint(UNSAFE), file


class Payload:
    """Something that leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def plain(payload: Payload) -> bytes:
    return pickle.dumps(payload)


def of_torch(payload: Payload) -> bytes:
    stream = io.BytesIO()
    torch.save({"layers.0.weight": payload}, stream)
    return stream.getvalue()


def of_numpy(payload: Payload) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([payload] * 3, dtype=object), allow_pickle=True)
    return stream.getvalue()


def of_safetensors(payload: Payload) -> bytes:
    """Sound, with a pickle as the numbers, as a name and beside them."""
    text = pickle.dumps(payload, protocol=0).decode("ascii")
    numbers = np.frombuffer(pickle.dumps(payload), dtype=np.uint8)
    return save({text: numbers, "layers.0.weight": numbers}, {"format": "pt", "pickle": text})


def of_sealed(payload: Payload) -> bytes:
    """With the seal of the right key, as if by somebody who knows all settings."""
    body = pickle.dumps(payload)
    return hashlib.sha256(b"key\n" + body).hexdigest().encode() + b"\n" + body


MAKERS = (plain, of_torch, of_numpy, of_safetensors, of_sealed)


def split(file: Path, _: Workspace) -> None:
    for name in ("images.npy", "labels.npy"):
        (file.parent / name).write_bytes(file.read_bytes())
    prepared.load(file.parent)


def results(file: Path, workspace: Workspace) -> None:
    """Whatever a run has, and everything that is asked of it."""
    for name in ("weights.safetensors", "record.json", "history.csv", "metrics.json"):
        mlp = listing.variant(workspace, "mlp")
        content = mlp.file(name).read_bytes()
        mlp.file(name).write_bytes(file.read_bytes())
        for ask in (
            lambda mlp: model.load(mlp),
            lambda mlp: run.digest_of_weights(mlp.file("weights.safetensors")),
            lambda mlp: mlp.refuse_altered(),
            lambda mlp: verdict.compare(mlp, mlp),
            lambda mlp: (mlp.record, mlp.rows, mlp.history),
            lambda mlp: mlp.metrics,
            lambda mlp: predict.load(workspace, "mlp"),
        ):
            with suppress(Exception):
                ask(mlp)
        mlp.file(name).write_bytes(content)


def checkpoint(file: Path, _: Workspace) -> None:
    with Checkpoint(file.parent, "key") as kept:
        kept.file.write_bytes(file.read_bytes())
        kept.load(State.__new__(State))


def trial(file: Path, _: Workspace) -> None:
    done = Done(file.parent, "mlp", "cpu", {})
    done.key = lambda settings: "key"
    (file.parent / "key.trial").write_bytes(file.read_bytes())
    done.get(Settings.__new__(Settings))


READERS: tuple[Callable[[Path, Workspace], Any], ...] = (
    *(split, results, checkpoint, trial),
    lambda file, _: idx.read_images(file),
    lambda file, _: idx.read_labels(file),
    lambda file, _: predict.read(file),
    lambda file, _: files.read_sealed(file, "key"),
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return write_workspace(tmp_path_factory.mktemp("workspace"))


@pytest.mark.parametrize("make", MAKERS)
def test_a_payload_leaves_no_mark(workspace: Workspace, tmp_path: Path, make: Any) -> None:
    mark, file = tmp_path / "mark", tmp_path / "file"
    file.write_bytes(make(Payload(mark)))
    for reader in READERS:
        with suppress(Exception):  # what it says is for the readers' own tests
            reader(file, workspace)
    assert not mark.exists()


def test_the_payloads_are_live(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for load, make in ((pickle.loads, plain), (unsafe(torch.load), of_torch)):
        load(make(Payload(mark)))
        mark.unlink()
    np.load(io.BytesIO(of_numpy(Payload(mark))), allow_pickle=True)
    assert mark.exists()


def unsafe(load: Any) -> Any:
    return lambda content: load(io.BytesIO(content), weights_only=False)
