"""Image files get the classes that the model gives their pixels; bad ones, a line."""

import io
import json
import os
import pickle
import struct
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import yaml
from PIL import ExifTags, Image

from publishing import altered
from refashion.base import files
from refashion.base.errors import UserError
from refashion.data.catalogue import DATASETS
from refashion.evaluation import classify
from refashion.runs import listing
from refashion.serving import predict


@pytest.fixture
def pictures(world: Any, tmp_path: Path) -> list[str]:
    """Files of the world's images."""
    names = [str(tmp_path / f"{i}.png") for i in range(len(world.images))]
    for name, image in zip(names, world.images, strict=True):
        Image.fromarray(image).save(name)
    return names


def test_all_ways_to_name_a_model_give_the_same_bits(world: Any, tmp_path: Path) -> None:
    world.register("mlp", tmp_path.name)
    uri, run_id = f"models:/{tmp_path.name}@champion", world.runs["mlp"]
    sources = {"mlp": str(world.workspace.root), run_id[:8]: f"run {run_id}", uri: uri}
    for text, source in sources.items():
        model = predict.load(world.workspace, text)
        assert (model.name, model.source) == ("mlp", source)
        assert model.classes == DATASETS["fashion_mnist"].classes
        answers = model.probabilities(world.images)
        assert (answers.dtype, answers.shape) == (np.float64, (5, 10))
        assert answers.tobytes() == world.expected("mlp").tobytes()
        want = [model.classes[i] for i in answers.argmax(axis=1)]
        assert model.predict(world.images).tolist() == want


def test_all_kinds_of_images_give_the_same_bits(world: Any) -> None:
    images, want = world.images, world.expected("mlp")
    model = predict.load(world.workspace, "mlp")
    pictures = [Image.fromarray(image) for image in images]
    for same in (
        *(images, images.reshape(5, 784), images.astype(np.int64), images.tolist(), list(images)),
        *(torch.tensor(images), torch.tensor(images).int(), pictures, tuple(pictures)),
    ):
        assert model.probabilities(same).tobytes() == want.tobytes()
    for one in (images[0], images[0].ravel(), torch.tensor(images[0]), pictures[0]):
        assert model.probabilities(one).tobytes() == want[:1].tobytes()
    assert model.predict(images[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 27, 28), np.uint8), r"images: have the shape \(2, 27, 28\)"),
        (np.zeros((28, 28, 3), np.uint8), r"images: have the shape \(28, 28, 3\)"),
        ([], r"images: have the shape \(0,\)"),
        ("boot.png", r"images: have the shape \(\)"),
        (Image.new("L", (40, 30)), r"images: have the shape \(30, 40\)"),
        (Image.new("I;16", (28, 28)), "has more than 8 bits a channel; save it with 8"),
        ([[1, 2], [3]], "images: differ in shape, or are no numbers"),
        (np.zeros((1, 784)), "images: have pixels of type float64"),
        (torch.zeros(1, 784, requires_grad=True), "images: have pixels of type float32"),
        ([[None] * 784], "images: have pixels of type object"),
        ([["0"] * 784], "images: have pixels of type <U1"),
        ([torch.zeros(784, requires_grad=True)], "images: differ in shape, or are no numbers"),
        (Image.new("La", (28, 28)), "cannot be read (.*)"),
        ([[0] * 783 + [256]], "image 0: has pixels from 0 to 256"),
        ([[9] * 784, [0] * 783 + [-1]], "image 1: has pixels from -1 to 0"),
    ],
)
def test_no_images_are_refused(world: Any, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}") as refusal:
        predict.load(world.workspace, "mlp").predict(images)
    advice = classify.ADVICE if message.startswith("image") else ""
    assert str(refusal.value).endswith(advice)


def test_weights_whose_outputs_are_beyond_all_bounds_are_refused(world: Any) -> None:
    model = predict.load(world.workspace, "mlp")
    wild = {name: torch.full_like(x, 3e38) for name, x in model.weights.items()}
    with pytest.raises(UserError, match=r"^image 0: the model's numbers go beyond all bounds"):
        replace(model, weights=wild).probabilities(np.full((1, 28, 28), 9, np.uint8))


def test_scaled_pixels_are_refused(world: Any) -> None:
    model = predict.load(world.workspace, "mlp")
    images = np.zeros((3, 28, 28), np.uint8)
    assert model.probabilities(images).shape == (3, 10)  # black is no mistake
    images[1, 14] = 1
    with pytest.raises(UserError, match=r"^image 1: has no pixel above 1; .* by 255$"):
        model.probabilities(images)


def test_command_answers_people_and_programs(world: Any, pictures: list[str]) -> None:
    for_people = world.refashion("predict", *pictures, "--model", "mlp")
    for_programs = world.refashion("predict", *pictures, "--model", "mlp", "--json")
    told = f"model: mlp from {world.workspace.root}\n"
    assert for_people.stderr == for_programs.stderr == told
    assert for_people.exit_code == for_programs.exit_code == 0
    rows = json.loads(for_programs.stdout)
    lines = [line.split("\t") for line in for_people.stdout.splitlines()]
    assert [row["file"] for row in rows] == [file for file, *_ in lines] == pictures
    for row, (_, name, p), want in zip(rows, lines, world.expected("mlp"), strict=True):
        assert sorted(row["probabilities"].values()) == sorted(want.tolist())
        assert row["class"] == name == max(row["probabilities"], key=row["probabilities"].get)
        assert float(p) == pytest.approx(want.max(), abs=1e-3)


def test_command_goes_on_past_bad_images(world: Any, pictures: list[str], tmp_path: Path) -> None:
    dark, bad = tmp_path / "dark.png", tmp_path / "bad.png"
    Image.new("L", (28, 28), 1).save(dark)
    bad.write_text("no image")
    files = ("nowhere.png", pictures[0], str(bad), str(dark), pictures[1])
    done = world.refashion("predict", *files, "--model", "mlp")
    assert done.exit_code == 1
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == pictures[:2]
    _, *told = done.stderr.splitlines()
    assert told == [
        "error: nowhere.png: no such file; check its name",
        f"error: {bad}: is not an image; {predict.ADVICE}",
        f"error: {dark}: image 0: has no pixel above 1; multiply scaled pixels by 255",
    ]


def test_command_scales_on_request(world: Any, pictures: list[str], tmp_path: Path) -> None:
    large = str(tmp_path / "large.png")
    Image.new("L", (56, 56), 200).save(large)
    refused = world.refashion("predict", large, "--model", "mlp")
    assert (refused.exit_code, refused.stdout) == (1, "")
    told = f"error: {large}: has 56x56 pixels, not 28x28; scale it with --resize"
    assert refused.stderr.splitlines()[1:] == [told]
    done = world.refashion("predict", large, pictures[0], "--model", "mlp", "--resize", "--json")
    grey, same = (list(row["probabilities"].values()) for row in json.loads(done.stdout))
    model = predict.load(world.workspace, "mlp")
    assert sorted(grey) == sorted(*model.probabilities([[200] * 784]).tolist())
    assert sorted(same) == sorted(world.expected("mlp")[0].tolist())  # 28x28: nothing to scale


def test_scaling_keeps_proportions(tmp_path: Path) -> None:
    Image.new("L", (200, 100), 255).save(tmp_path / "wide.png")
    pixels = predict.read(tmp_path / "wide.png", resize=True)
    assert pixels[7:21].min() == 255 and not pixels[:7].any() and not pixels[21:].any()


def test_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the camera was held on its side
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(predict.read(tmp_path / "a.png"), np.rot90(NOISE, -1))


def test_best_variant_is_the_default(world: Any) -> None:
    workspace = world.workspace
    with pytest.raises(UserError, match=r"compares no variant of params\.yaml; run `dvc repro`"):
        predict.load(workspace)
    accuracies = {"dropped": 0.99, "mlp": 0.8, "softmax": 0.9}
    compared = {name: {"accuracy": a} for name, a in accuracies.items()}
    files.write_json(workspace.comparison, {"variants": compared})
    assert predict.load(workspace).name == "softmax"
    workspace.comparison.unlink()


@pytest.mark.parametrize(
    ("mode", "colour", "pixel"),
    [
        ("RGB", (255, 0, 0), 76),  # ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B
        ("RGB", (200, 200, 200), 200),
        ("RGBA", (200, 200, 200, 255), 200),
        ("RGBA", (255, 255, 255, 0), 0),
        ("LA", (100, 255), 100),
        ("1", 1, 255),
        ("P", (254, 254, 254), 254),
    ],
)
def test_colour_becomes_grey(mode: str, colour: object, pixel: int, tmp_path: Path) -> None:
    Image.new(mode, (28, 28), colour).save(tmp_path / "a.png")
    pixels = predict.read(tmp_path / "a.png")
    assert (pixels.dtype, pixels.shape) == (np.uint8, (28, 28))
    assert set(pixels.ravel().tolist()) == {pixel}


def png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "png")
        return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no file; name the pictures themselves"),
        (png(NOISE)[:200], "cannot be read (image file is truncated"),
        (png(NOISE[:, 1:]), "has 27x28 pixels, not 28x28; scale it with --resize"),
    ],
    ids=["pipe", "truncated", "small"],
)
def test_bad_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    bad = tmp_path / "bad.png"
    if content:
        bad.write_bytes(content)
    else:
        os.mkfifo(bad)  # which nobody would write to
    with pytest.raises(UserError) as refusal:
        predict.read(bad)
    assert str(refusal.value).startswith(message)


def test_names_too_long_for_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^cannot be read \(File name too long\)"):
        predict.read(tmp_path / ("a" * 300))


@pytest.mark.parametrize("size", [(2000, 30), (30, 2000), (56, 1)])
def test_a_picture_of_which_nothing_would_be_left_is_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("L", size, 255).save(tmp_path / "thin.png")
    with pytest.raises(UserError, match=r"pixels, of which nothing is left in 28x28; cut it first"):
        predict.read(tmp_path / "thin.png", resize=True)
    Image.new("L", (55, 1), 255).save(tmp_path / "thin.png")
    assert predict.read(tmp_path / "thin.png", resize=True).any()


@pytest.mark.parametrize("exif", [b"MM\0*", b"II\x2b\0\x08\0\0\0" + bytes(8)])
def test_damaged_metadata_is_refused(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    with pytest.raises(UserError, match=r"^cannot be read \("):
        predict.read(tmp_path / "a.png")


def test_colours_of_16_bits_are_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">2I5B", 28, 28, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([1, 2] * 3 * 28)) * 28)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(UserError, match="has more than 8 bits a channel"):
        predict.read(tmp_path / "deep.png")


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("white", [7, 255, 1023, 65535])
def test_a_ppm_of_more_than_8_bits_is_refused(tmp_path: Path, kind: str, white: int) -> None:
    numbers = 28 * 28 * (3 if kind in ("P3", "P6") else 1)
    one = white.to_bytes(1 + (white > 255), "big") if kind in ("P5", "P6") else b"%d " % white
    (tmp_path / "a.ppm").write_bytes(f"{kind} 28 28 {white}\n".encode() + one * numbers)
    if white <= 255:
        assert (predict.read(tmp_path / "a.ppm") == 255).all()
    else:
        with pytest.raises(UserError, match="has more than 8 bits a channel"):
            predict.read(tmp_path / "a.ppm")


@pytest.mark.parametrize("content", [b"P1 28 28\n" + b"0 " * 784, b"P4 28 28\n" + bytes(4 * 28)])
def test_a_picture_of_bits_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pbm").write_bytes(content)
    assert (predict.read(tmp_path / "a.pbm") == 255).all()


def test_colours_of_16_bits_in_all_are_read(tmp_path: Path) -> None:
    """Five of red, six of green and five of blue."""
    header = struct.pack("<IiiHHIIiiII", 40, 28, 28, 1, 16, 3, 28 * 28 * 2, 0, 0, 0, 0)
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    start = 14 + len(header + masks)
    content = struct.pack("<2sIHHI", b"BM", start + 28 * 28 * 2, 0, 0, start) + header + masks
    (tmp_path / "a.bmp").write_bytes(content + b"\xff" * (28 * 28 * 2))
    assert (predict.read(tmp_path / "a.bmp") == 255).all()


@pytest.mark.parametrize("limit", [28 * 28 - 1, 28 * 28 // 2 - 1])
def test_a_picture_that_unpacks_to_gigabytes_is_refused(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    (tmp_path / "large.png").write_bytes(png(NOISE))
    for resize in (False, True):
        with pytest.raises(UserError, match=f"^has 784 pixels, more than {limit}; scale it down"):
            predict.read(tmp_path / "large.png", resize)
    assert not recwarn.list


def test_wrong_choice_of_a_model_is_refused(world: Any) -> None:
    for text, message in (
        ("cnn", r"cnn: no run .* \(variants here: softmax, mlp, dropout\)$"),
        ("models:/none@a", "Registered Model with name=none not found"),
    ):
        with pytest.raises(UserError, match=message):
            predict.load(world.workspace, text)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (".", "its files are missing; `refashion publish`"),
        ("MLmodel", "its files are missing; `refashion publish`"),
        ("artifacts/record.json", "is no model of this project; make one by `refashion register`"),
    ],
)
def test_model_without_its_files_is_told(
    world: Any, tmp_path: Path, lost: str, message: str
) -> None:
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}/1"
    folder = Path(mlflow.models.get_model_info(uri).artifact_path.removeprefix("file://"))
    (folder / lost).rename(tmp_path / "away")
    try:
        with pytest.raises(UserError, match=f"^{uri}: {message}"):
            predict.load(world.workspace, uri)
    finally:
        (tmp_path / "away").rename(folder / lost)


def test_a_pickle_in_a_model_is_not_read(world: Any, tmp_path: Path) -> None:
    """What MLflow itself would load: the model of somebody who can write to the registry."""
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}@champion"
    folder = Path(mlflow.models.get_model_info(uri).artifact_path.removeprefix("file://"))
    description, mark = folder / "MLmodel", tmp_path / "mark"

    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (mark,)

    payload = folder / "python_model.pkl"
    payload.write_bytes(pickle.dumps(Payload()))
    about = yaml.safe_load(description.read_text())
    about["flavors"]["python_function"] = {
        **{"loader_module": "mlflow.pyfunc.model", "python_version": "3.11.0"},
        **{"python_model": "python_model.pkl", "cloudpickle_version": "3.0"},
    }
    with altered(description):
        description.write_text(yaml.safe_dump(about))
        model = predict.load(world.workspace, uri)
        assert model.probabilities(world.images).tobytes() == world.expected("mlp").tobytes()
        assert not mark.exists()
        with suppress(Exception):  # it has no sound model
            mlflow.pyfunc.load_model(uri)
        assert mark.exists()
    payload.unlink()


def test_altered_weights_do_not_answer(world: Any, tmp_path: Path) -> None:
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}@champion"
    registered = mlflow.models.get_model_info(uri).artifact_path.removeprefix("file://")
    name = "weights.safetensors"
    here = listing.variant(world.workspace, "mlp").file(name)
    for file, text, told in (
        (here, "mlp", "not the weights"),
        (world.artifact("mlp", name), world.runs["mlp"], "was altered after"),
        (Path(registered) / "artifacts" / name, uri, "not the weights"),
    ):
        with altered(file), pytest.raises(UserError, match=f"{name}:? {told}") as refusal:
            predict.load(world.workspace, text)
        assert "MLflow at" not in str(refusal.value)
        assert predict.load(world.workspace, text).probabilities(world.images).shape == (5, 10)
