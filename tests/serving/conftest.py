"""Two models that were really trained, published to a database as runs of one experiment."""

import runpy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import torch

from refashion import selftest
from refashion.base import paths
from refashion.data import prepared
from refashion.serving import registry
from refashion.tracking import publish, store
from refashion.tracking.context import Context
from refashion.tracking.results import Results
from refashion.training import loop, record
from refashion.training.settings import Settings

CONTEXT = Context(
    commit="c" * 40, diff=b"", experiment="puffy-hake", baseline="b" * 40, environment=""
)
SETTINGS = {
    "mlp": replace(
        selftest.PLAIN, hidden=(16,), dropout=(0.0,), momentum=0.9, batch_size=32, epochs=4
    ),
    "softmax": selftest.PLAIN,
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A checkout whose results were published; `dropout` alone is made up."""

    root: Path
    runs: dict[str, str]
    """Id of the run of each variant."""
    images: np.ndarray
    """uint8 [5, 28, 28]; mlp takes each for another class."""

    def here(self, path: Path) -> Path:
        """Give a file of this checkout."""
        return self.root / path.relative_to(paths.ROOT)

    def artifact(self, variant: str, name: str) -> Path:
        """Give a file that MLflow keeps of a run."""
        folder = self.root / "mlflow-artifacts" / "fashion_mnist" / self.runs[variant]
        return folder / "artifacts" / name

    def publish(self, variant: str) -> str:
        """Publish to the store and give the id of the run."""
        with store.connect() as found:
            results = Results(root=self.root, variant=variant)
            return publish.publish(results, CONTEXT, found).run_id

    def register(self, variant: str, name: str, alias: str = "champion") -> registry.Registration:
        """Register a run's model."""
        with store.connect(reading=True) as found:
            run = registry.one_run(self.runs[variant], found)
            return registry.register(run, alias, found, name=name)


@pytest.fixture(scope="session")
def made_up() -> SimpleNamespace:
    """Give the functions of made_up.py."""
    file = Path(__file__).parents[1] / "tracking" / "made_up.py"
    return SimpleNamespace(**runpy.run_path(str(file)))


@contextmanager
def changed_by_one_bit(file: Path) -> Iterator[None]:
    """Change the last bit of a file's content for a while."""
    content = file.read_bytes()
    end = len(content.rstrip(b'\n}" '))
    file.write_bytes(content[: end - 1] + bytes([content[end - 1] ^ 1]) + content[end:])
    yield
    file.write_bytes(content)


@pytest.fixture(scope="session")
def altered() -> object:
    """Give a context in which a file is not what it was."""
    return changed_by_one_bit


def train(root: Path, variant: str, settings: Settings) -> None:
    examples = selftest.examples(torch.device("cpu"))
    pixels, labels = examples.inputs.numpy(), examples.targets.numpy().astype(np.uint8)
    split = prepared.Split(images=pixels, labels=labels)

    def here(path: Path) -> Path:
        return root / path.relative_to(paths.ROOT)

    record.save(
        loop.train(settings, split, split, device="cpu"),
        variant=variant,
        settings=settings,
        inputs={"train": prepared.digest(split), "validation": prepared.digest(split)},
        weights=here(paths.weights(variant)),
        history=here(paths.history(variant)),
        record=here(paths.record(variant)),
        log=here(paths.training_log(variant)),
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, made_up: SimpleNamespace) -> World:
    """Train and publish; not to be changed for good."""
    root = tmp_path_factory.mktemp("trained")
    made_up.write_results(root)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # those that wait for one another take many times as long
    for variant, settings in SETTINGS.items():
        train(root, variant, settings)
    torch.set_num_threads(threads)
    pixels = selftest.examples(torch.device("cpu")).inputs[:5]
    world = World(root=root, runs={}, images=pixels.numpy().reshape(-1, 28, 28))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "MAIN_ROOT", root)
        for variant in SETTINGS:
            world.runs[variant] = world.publish(variant)
    return world


@pytest.fixture
def world(trained: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Work in the checkout of the trained models, by its database."""
    there = {k: trained.here(v) for k, v in vars(paths).items() if isinstance(v, Path)}
    for name, path in there.items():
        monkeypatch.setattr(paths, name, path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.default())
    mlflow.set_tracking_uri(store.default())
    yield trained
    mlflow.set_tracking_uri(None)
