"""Readers of files that anybody may have written: right, or one line that names what is wrong."""

import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from damage import change, changed_params, damaged
from official import pack
from refashion.base import params
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.data import idx, prepared
from refashion.evaluation import model
from refashion.runs import listing
from refashion.serving import predict
from refashion.studies import trials
from refashion.training.settings import Settings
from synthetic import write_workspace

shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
many = settings(max_examples=200, suppress_health_check=shared)
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3, 1], dtype=np.uint8)


@contextmanager
def one_line() -> Iterator[None]:
    """Let through what is read, and what is refused in one line; nothing else."""
    try:
        yield
    except UserError as error:
        assert str(error) and "\n" not in str(error), error


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for a file."""
    return tmp_path_factory.mktemp("file") / "file"


SOUND = {"images": (idx.read_images, pack(IMAGES)), "labels": (idx.read_labels, pack(LABELS))}


@many
@given(data=st.data(), kind=st.sampled_from([*SOUND]), packed=st.booleans())
def test_idx(file: Path, data: st.DataObject, kind: str, packed: bool) -> None:
    """Damaged before or after it was packed."""
    read, content = SOUND[kind]
    inner = content if packed else gzip.decompress(content)
    altered = data.draw(damaged(inner))
    file.write_bytes(altered if packed else gzip.compress(altered, mtime=0))
    with one_line():
        values = read(file)
        assert values.dtype == np.uint8
        assert kind == "images" or (values < 10).all()


@many
@given(data=st.data(), name=st.sampled_from(["images.npy", "labels.npy"]))
def test_split(file: Path, data: st.DataObject, name: str) -> None:
    folder = file.parent / "split"
    prepared.save(folder, IMAGES.reshape(5, 784), LABELS)
    (folder / name).write_bytes(data.draw(damaged((folder / name).read_bytes())))
    with one_line():
        split = prepared.load(folder)
        assert prepared.digest(split)
        assert (split.labels < 10).all()


SIZES = st.integers() | st.sampled_from([5, 784, 10**30, -1, None, True, 5.0])
HEADERS = st.fixed_dictionaries(
    {
        "descr": st.sampled_from(["|u1", "<f8", "|O", "u1,u1", "|V9", "", "x"]) | st.none(),
        "fortran_order": st.booleans() | st.none(),
        "shape": st.lists(SIZES, max_size=4).map(tuple) | st.just(5),
    }
)


@many
@given(header=HEADERS, version=st.integers(0, 4), spare=st.text(max_size=3))
def test_header_of_a_split(file: Path, header: dict, version: int, spare: str) -> None:
    """Whatever it promises."""
    folder = file.parent / "split"
    prepared.save(folder, IMAGES.reshape(5, 784), LABELS)
    text = f"{header}{spare}\n".encode()
    length = len(text).to_bytes(4 if version > 1 else 2, "little")
    (folder / "labels.npy").write_bytes(
        b"\x93NUMPY" + bytes([version, 0]) + length + text + LABELS.tobytes()
    )
    with one_line():
        assert np.array_equal(prepared.load(folder).labels, LABELS)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with results of the pipeline."""
    return write_workspace(tmp_path_factory.mktemp("readers"))


@contextmanager
def replaced(path: Path, content: bytes) -> Iterator[None]:
    """Let a file hold something else for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    yield
    path.write_bytes(before)


@many
@given(data=st.data())
def test_weights(workspace: Workspace, data: st.DataObject) -> None:
    """Those that are read are those of the record, whatever else the file holds."""
    run = listing.variant(workspace, "softmax")
    path, expected = run.file("weights.safetensors"), model.load(run)
    with replaced(path, data.draw(damaged(path.read_bytes()))), one_line():
        weights = model.load(run)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected)


@many
@given(data=st.data(), as_json=st.booleans())
def test_record(workspace: Workspace, data: st.DataObject, as_json: bool) -> None:
    path = workspace.models / "mlp" / "record.json"
    if as_json:
        values = json.loads(path.read_text())
        change(values, data.draw, st.sampled_from([*values]) | st.text(max_size=9))
        content = json.dumps(values).encode()
    else:
        content = data.draw(damaged(path.read_bytes()))
    with replaced(path, content), one_line():
        record = listing.variant(workspace, "mlp").record
        assert record.name and record.run_key and record.result


SETTINGS = Settings(hidden=(), num_inputs=4, num_outputs=2, batch_size=2, epochs=2)


@many
@given(data=st.data())
def test_trial(file: Path, data: st.DataObject) -> None:
    """None that was altered is used."""
    done = trials.Done(file.parent / "trials", "softmax", "cpu", {})
    result = {"history": [], "contract": "c", "seconds": [], "num_examples": 3, "machine": {}}
    done.put(SETTINGS, result)
    (path,) = done.folder.iterdir()
    content = path.read_bytes()
    altered = data.draw(damaged(content))
    path.write_bytes(altered)
    assert (done.get(SETTINGS) is not None) == (altered == content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO"])
@settings(max_examples=60, suppress_health_check=shared)
@given(data=st.data(), resize=st.booleans())
def test_image(file: Path, kind: str, data: st.DataObject, resize: bool) -> None:
    content = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(content, kind)
    file.write_bytes(data.draw(damaged(content.getvalue())))
    with one_line():
        pixels = predict.read(file, resize)
        assert (pixels.dtype, pixels.shape) == (np.uint8, (28, 28))


def load_params(file: Path, content: bytes) -> None:
    """Load settings that are legal, or have one line for each mistake."""
    file.write_bytes(content)
    try:
        params.load(file)
    except UserError as error:
        lines = str(error).splitlines()
        assert lines and all(line.startswith(f"{file.name}: ") for line in lines), lines


@pytest.mark.parametrize("cases", [200, pytest.param(10_000, marks=pytest.mark.faults)])
def test_params(root: Path, file: Path, cases: int) -> None:
    @settings(max_examples=cases, suppress_health_check=shared)
    @given(text=changed_params(root / "params.yaml"))
    def test(text: str) -> None:
        load_params(file, text.encode())

    test()


@many
@given(data=st.data())
def test_text_of_params(root: Path, file: Path, data: st.DataObject) -> None:
    load_params(file, data.draw(damaged((root / "params.yaml").read_bytes())))
