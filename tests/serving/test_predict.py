"""Image files get the classes that the model gives their pixels; bad ones, a line."""

import io
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image

from publishing import altered
from refashion.base import files
from refashion.base.errors import UserError
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
    uri = f"models:/{tmp_path.name}@champion"
    models = [
        predict.of_workspace(world.workspace, "mlp"),
        predict.of_run(world.workspace, world.runs["mlp"]),
        predict.of_registry(world.workspace, uri),
    ]
    names = ["mlp, trained here", f"mlp of run {world.runs['mlp']}", f"mlp of {uri}"]
    assert [model.name for model in models] == names
    for model in models:
        answers = model.answer(world.images)
        assert [list(answer.values()) for answer in answers] == world.expected("mlp").tolist()
        assert [list(answer) for answer in answers] == [list(model.classes)] * 5


def test_command_answers_people_and_programs(
    world: Any, tmp_path: Path, pictures: list[str]
) -> None:
    world.register("mlp", tmp_path.name)
    choice = ("--model", f"models:/{tmp_path.name}@champion")
    for_people = world.refashion("predict", *pictures, *choice)
    for_programs = world.refashion("predict", *pictures, *choice, "--json")
    assert for_people.stderr == for_programs.stderr == f"model: mlp of {choice[1]}\n"
    rows = json.loads(for_programs.stdout)
    lines = [line.split("\t") for line in for_people.stdout.splitlines()]
    assert [row["file"] for row in rows] == [file for file, *_ in lines] == pictures
    for row, (_, name, p), want in zip(rows, lines, world.expected("mlp"), strict=True):
        assert sorted(row["probabilities"].values()) == sorted(want.tolist())
        assert row["class"] == name == max(row["probabilities"], key=row["probabilities"].get)
        assert float(p) == pytest.approx(want.max(), abs=1e-3)


def test_command_refuses_in_one_line_before_any_output(world: Any, pictures: list[str]) -> None:
    done = world.refashion("predict", pictures[0], "nowhere.png")
    told = "error: nowhere.png: no such file; check its name\n"
    assert (done.exit_code, done.stdout, done.stderr) == (2, "", told)


def test_best_variant_is_the_default(world: Any) -> None:
    workspace = world.workspace
    with pytest.raises(UserError, match=r"compares no variant of params\.yaml; run `dvc repro`"):
        predict.of_workspace(workspace, None)
    accuracies = {"dropped": 0.99, "mlp": 0.8, "softmax": 0.9}
    compared = {name: {"accuracy": a} for name, a in accuracies.items()}
    files.write_json(workspace.comparison, {"variants": compared})
    assert predict.of_workspace(workspace, None).name == "softmax, trained here"
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
    pixels = predict.read([tmp_path / "a.png"])
    assert (pixels.dtype, pixels.shape) == (np.uint8, (1, 28, 28))
    assert set(pixels.ravel().tolist()) == {pixel}


def png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "png")
        return file.getvalue()


NOISE = np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read (Is a directory); give a picture of 28x28 pixels, light on black"),
        (b"no image", "is not an image; give a picture of 28x28 pixels"),
        (png(NOISE)[:200], "cannot be read (image file is truncated"),
        (png(NOISE[:, 1:]), "has 27x28 pixels; scale it to 28x28"),
        (png(NOISE.astype(np.uint16)), "has more than 8 bits a pixel; save it with 8"),
    ],
    ids=["folder", "text", "truncated", "small", "16 bits"],
)
def test_bad_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    bad = tmp_path / "bad.png"
    if content:
        bad.write_bytes(content)
    else:
        bad.mkdir()
    with pytest.raises(UserError) as refusal:
        predict.read([bad])
    assert str(refusal.value).startswith(f"{bad}: {message}")


def test_wrong_choice_of_a_model_is_refused(world: Any) -> None:
    for choose, text, message in (
        (predict.of_workspace, "cnn", r"variant 'cnn' is not in params\.yaml"),
        (predict.of_run, "puffy-hake", "puffy-hake: means 2 runs"),
        (predict.of_registry, "boots", "boots: names no model; give models:/"),
        (predict.of_registry, "models:/none@a", "Registered Model with name=none not found"),
    ):
        with pytest.raises(UserError, match=message):
            choose(world.workspace, text)


def test_model_of_somebody_else_is_refused(world: Any, tmp_path: Path) -> None:
    code = tmp_path / "foreign.py"
    code.write_text(
        "from mlflow import models\nfrom mlflow.pyfunc import PythonModel\n"
        "class Foreign(PythonModel):\n"
        "    def predict(self, context, model_input: list[str]): raise SystemExit\n"
        "models.set_model(Foreign())\n"
    )
    experiment = mlflow.create_experiment("foreign", tmp_path.as_uri())
    with mlflow.start_run(experiment_id=experiment):
        mlflow.pyfunc.log_model(
            name="foreign",
            python_model=str(code),
            pip_requirements=["mlflow"],
            registered_model_name="foreign",
        )
    with pytest.raises(UserError, match=r"^models:/foreign/1: is no model of this project"):
        predict.of_registry(world.workspace, "models:/foreign/1")


def test_altered_weights_do_not_answer(world: Any, tmp_path: Path) -> None:
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}@champion"
    registered = mlflow.models.get_model_info(uri).artifact_path.removeprefix("file://")
    name = "weights.safetensors"
    here = listing.variant(world.workspace, "mlp").file(name)
    for file, choose, text, told in (
        (here, predict.of_workspace, "mlp", "not the weights"),
        (world.artifact("mlp", name), predict.of_run, world.runs["mlp"], "was altered after"),
        (Path(registered) / "artifacts" / name, predict.of_registry, uri, "not the weights"),
    ):
        with altered(file), pytest.raises(UserError, match=f"{name}:? {told}") as refusal:
            choose(world.workspace, text)
        assert "MLflow at" not in str(refusal.value)
        assert choose(world.workspace, text).probabilities(world.images).shape == (5, 10)


def test_missing_model_of_the_workspace_is_told(world: Any) -> None:
    weights = world.workspace.models / "mlp" / "weights.safetensors"
    with altered(weights), pytest.raises(UserError, match=rf"^mlp: its {weights.name} is missing"):
        weights.unlink()
        predict.of_workspace(world.workspace, "mlp")
