"""Image files get the classes that the model gives their pixels; bad ones, a line."""

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from refashion import cli
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.runs import listing
from refashion.serving import predict

Altered = Callable[[Path], AbstractContextManager[None]]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["predict", *arguments])


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
    found, for_programs = run(*pictures, *choice), run(*pictures, *choice, "--json")
    assert found.stderr == for_programs.stderr == f"model: mlp of {choice[1]}\n"
    rows = json.loads(for_programs.stdout)
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    assert [row["file"] for row in rows] == [file for file, *_ in lines] == pictures
    for row, (_, name, p), want in zip(rows, lines, world.expected("mlp"), strict=True):
        assert sorted(row["probabilities"].values()) == sorted(want.tolist())
        assert row["class"] == name == max(row["probabilities"], key=row["probabilities"].get)
        assert float(p) == pytest.approx(want.max(), abs=1e-3)


def test_command_refuses_in_one_line_before_any_output(pictures: list[str]) -> None:
    found = run(pictures[0], "nowhere.png")
    told = "error: nowhere.png: no such file; check its name\n"
    assert (found.exit_code, found.stdout, found.stderr) == (2, "", told)


def test_best_variant_is_the_default(world: Any) -> None:
    workspace = world.workspace
    with pytest.raises(UserError, match=r"compares no variant of params\.yaml; run `dvc repro`"):
        predict.of_workspace(workspace, None)
    accuracies = {"dropped": 0.99, "mlp": 0.8, "softmax": 0.9}
    compared = {name: {"accuracy": a} for name, a in accuracies.items()}
    files.write_json(workspace.comparison, {"variants": compared})
    assert predict.of_workspace(workspace, None).name == "softmax, trained here"
    assert predict.trained_here(workspace, "mlp")[:2] == ("mlp", "fashion_mnist")
    workspace.comparison.unlink()


def grey(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (28, 28), colour)


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (grey("RGB", (255, 0, 0)), 76),  # ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B
        (grey("RGB", (200, 200, 200)), 200),
        (grey("RGBA", (200, 200, 200, 255)), 200),
        (grey("RGBA", (255, 255, 255, 0)), 0),
        (grey("LA", (100, 255)), 100),
        (grey("1", 1), 255),
        (grey("L", 254).convert("P"), 254),
    ],
)
def test_colour_becomes_grey(image: Image.Image, pixel: int, tmp_path: Path) -> None:
    image.save(tmp_path / "a.png")
    found = predict.read([tmp_path / "a.png"])
    assert (found.dtype, found.shape) == (np.uint8, (1, 28, 28))
    assert set(found.ravel().tolist()) == {pixel}


def test_grey_pixels_stay_as_they_are(world: Any, pictures: list[str]) -> None:
    assert (predict.read(list(map(Path, pictures))) == world.images).all()


def write_bad(kind: str, file: Path) -> None:
    if kind == "folder":
        file.mkdir()
    elif kind == "text":
        file.write_text("no image")
    elif kind == "truncated":
        noise = np.random.default_rng(0).integers(0, 255, (28, 28), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        file.write_bytes(file.read_bytes()[:200])
    elif kind == "small":
        Image.new("L", (27, 28)).save(file)
    elif kind == "16 bits":
        Image.fromarray(np.full((28, 28), 40_000, np.uint16)).save(file)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file; check its name"),
        ("folder", "cannot be read (Is a directory); give a picture of 28x28 pixels, light on"),
        ("text", "is not an image; give a picture of 28x28 pixels"),
        ("truncated", "cannot be read (image file is truncated"),
        ("small", "has 27x28 pixels; scale it to 28x28"),
        ("16 bits", "has more than 8 bits a pixel; save it with 8"),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, kind: str, message: str) -> None:
    bad = tmp_path / "bad.png"
    write_bad(kind, bad)
    with pytest.raises(UserError) as refusal:
        predict.read([bad])
    assert str(refusal.value).startswith(f"{bad}: {message}")


def test_wrong_choice_of_a_model_is_refused(world: Any) -> None:
    workspace = world.workspace
    for choose, text, message in (
        (predict.of_workspace, "cnn", r"variant 'cnn' is not in params\.yaml"),
        (predict.of_run, "puffy-hake", "puffy-hake: means 2 runs"),
        (predict.of_registry, "boots", "boots: names no model; give models:/"),
        (predict.of_registry, "models:/none@a", "Registered Model with name=none not found"),
    ):
        with pytest.raises(UserError, match=message):
            choose(workspace, text)


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


def test_altered_weights_do_not_answer(world: Any, tmp_path: Path, altered: Altered) -> None:
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}@champion"
    kept = mlflow.models.get_model_info(uri).artifact_path.removeprefix("file://")
    name = "weights.safetensors"
    here = listing.variant(world.workspace, "mlp").file(name)
    for file, choose, text in (
        (here, predict.of_workspace, "mlp"),
        (world.artifact("mlp", name), predict.of_run, world.runs["mlp"]),
        (Path(kept) / "artifacts" / name, predict.of_registry, uri),
    ):
        with altered(file), pytest.raises(UserError, match=name) as refusal:
            choose(world.workspace, text)
        assert "MLflow at" not in str(refusal.value)
        assert choose(world.workspace, text).probabilities(world.images).shape == (5, 10)


def test_missing_model_of_the_workspace_is_told(world: Any, tmp_path: Path) -> None:
    root = shutil.copytree(world.workspace.root, tmp_path / "checkout")
    (root / "models" / "mlp" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"^mlp: its weights\.safetensors is missing; run"):
        predict.of_workspace(Workspace(root), "mlp")
