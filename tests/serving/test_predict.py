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
from refashion.base import files, paths
from refashion.base.errors import UserError
from refashion.evaluation import model
from refashion.serving import classify, predict

Altered = Callable[[Path], AbstractContextManager[None]]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["predict", *arguments])


def refusal(*arguments: str) -> str:
    """What a mistake is told as: one line and nothing else."""
    found = run(*arguments)
    assert (found.exit_code, found.stdout, found.stderr.count("\n")) == (2, "", 1), found.output
    return found.stderr.removeprefix("error: ").rstrip()


@pytest.fixture
def pictures(world: Any, tmp_path: Path) -> list[str]:
    """Files of the world's images."""
    names = [str(tmp_path / f"{i}.png") for i in range(len(world.images))]
    for name, image in zip(names, world.images, strict=True):
        Image.fromarray(image).save(name)
    return names


def test_all_ways_to_name_a_model_give_the_same_bits(
    world: Any, tmp_path: Path, pictures: list[str]
) -> None:
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}@champion"
    choices = (["--variant", "mlp"], ["--run", world.runs["mlp"]], ["--model", uri])
    found = [run(*pictures, *choice, "--json") for choice in choices]
    assert [result.exit_code for result in found] == [0, 0, 0], found[0].output
    assert found[0].stdout == found[1].stdout == found[2].stdout
    assert [result.stderr for result in found] == [
        "model: mlp, trained here\n",
        f"model: mlp of run {world.runs['mlp']}\n",
        f"model: mlp of {uri}\n",
    ]
    weights = model.load(*(world.here(p("mlp")) for p in (paths.weights, paths.record)))
    want = classify.probabilities(weights, world.images)
    rows = json.loads(found[0].stdout)
    assert [row["file"] for row in rows] == pictures
    for row, p in zip(rows, want.tolist(), strict=True):
        assert sorted(row["probabilities"].values()) == sorted(p)
        assert row["probabilities"][row["class"]] == max(p)
    classes = [row["class"] for row in rows]  # the labels of these images: 7 9 4 1 7
    assert classes == ["Sneaker", "Ankle boot", "Coat", "Trouser", "Sneaker"]


def test_people_get_a_line_for_each_file(world: Any, pictures: list[str]) -> None:
    found = run(*pictures[:2], "--variant", "mlp")
    lines = [line.split("\t") for line in found.stdout.splitlines()]
    assert [(file, name) for file, name, _ in lines] == [
        (pictures[0], "Sneaker"),
        (pictures[1], "Ankle boot"),
    ]
    assert all(0.99 < float(p) <= 1 for *_, p in lines)


def test_best_variant_is_the_default(
    world: Any, tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "COMPARISON", tmp_path / "comparison.json")
    assert "compares no variant of params.yaml; run `dvc repro`" in refusal(pictures[0])
    accuracies = {"dropped": 0.99, "mlp": 0.8, "softmax": 0.9}
    compared = {name: {"accuracy": a} for name, a in accuracies.items()}
    files.write_json(paths.COMPARISON, {"variants": compared})
    assert run(pictures[0]).stderr == "model: softmax, trained here\n"
    assert run(pictures[0], "--variant", "mlp").stderr == "model: mlp, trained here\n"


def test_only_variant_needs_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "COMPARISON", tmp_path / "comparison.json")
    assert predict._best(["softmax"]) == "softmax"


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
def test_bad_file_is_refused_before_any_output(
    world: Any, tmp_path: Path, pictures: list[str], kind: str, message: str
) -> None:
    bad = tmp_path / "bad.png"
    write_bad(kind, bad)
    assert refusal(pictures[0], str(bad), "--variant", "mlp").startswith(f"{bad}: {message}")


def test_wrong_choice_of_a_model_is_refused(
    world: Any, tmp_path: Path, pictures: list[str]
) -> None:
    picture = pictures[0]
    assert refusal(picture, "--variant", "cnn").startswith("variant 'cnn' is not in params.yaml")
    assert refusal(picture, "--run", "puffy-hake").startswith("puffy-hake: means 2 runs")
    assert refusal(picture, "--model", "boots").startswith("boots: names no model; give models:/")
    assert "Registered Model with name=none not found" in refusal(
        picture, "--model", "models:/none@a"
    )
    two = run(picture, "--variant", "mlp", "--run", "3f2a9c")
    assert two.exit_code == 2
    assert "choose one of --model, --run and --variant" in two.stderr


def test_model_of_somebody_else_is_refused(world: Any, tmp_path: Path, pictures: list[str]) -> None:
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
    assert refusal(pictures[0], "--model", "models:/foreign/1").startswith(
        "models:/foreign/1: is no model of this project"
    )


def test_altered_weights_do_not_answer(
    world: Any, tmp_path: Path, pictures: list[str], altered: Altered
) -> None:
    world.register("mlp", tmp_path.name)
    uri = f"models:/{tmp_path.name}@champion"
    kept = mlflow.models.get_model_info(uri).artifact_path.removeprefix("file://")
    name = "weights.safetensors"
    for file, choice in (
        (world.here(paths.weights("mlp")), ("--variant", "mlp")),
        (world.artifact("mlp", name), ("--run", world.runs["mlp"])),
        (Path(kept) / "artifacts" / name, ("--model", uri)),
    ):
        with altered(file):
            told = refusal(pictures[0], *choice)
            assert name in told and "MLflow at" not in told
        assert run(pictures[0], *choice).exit_code == 0


def test_missing_model_of_the_workspace_is_told(
    world: Any, tmp_path: Path, pictures: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(paths.MODELS, tmp_path / "models")
    (tmp_path / "models" / "mlp" / "weights.safetensors").unlink()
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    assert refusal(pictures[0], "--variant", "mlp").endswith("no such file; run `dvc repro`")


def test_scaled_image_is_refused(world: Any, tmp_path: Path) -> None:
    Image.fromarray((world.images[0] > 99).astype(np.uint8)).save(tmp_path / "scaled.png")
    with pytest.raises(UserError, match="multiply them by 255"):
        predict.of_workspace("mlp").answer(predict.read([tmp_path / "scaled.png"]))
