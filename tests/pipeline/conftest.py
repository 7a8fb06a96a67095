"""The real pipeline, in a workspace of its own: small images, small models, every stage."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from code_copy import copy_code

AUDIT = Path(__file__).parent / "audit"
MODELS = {
    "softmax": {"hidden": [], "lr": 0.02},
    "mlp": {"hidden": [32], "lr": 0.2},
}


@dataclass
class Workspace:
    """A git repository with the project in it."""

    root: Path
    models: dict[str, dict]
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command there; what it printed, once its exit code is as expected."""
        with tempfile.TemporaryFile("w+") as printed:  # a pipe would wait for queue workers
            done = subprocess.run(
                command,
                cwd=self.root,
                env={**os.environ, **self.environment},
                stdout=printed,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=600,
            )
            printed.seek(0)
            text = printed.read()
        assert done.returncode == code, f"{' '.join(command)}\n{text}"
        return text

    def commit(self, message: str) -> None:
        """Commit everything."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)


def make_small(studies: dict) -> None:
    """Let every study do all it does, in a second."""
    studies["weight_decay"] |= {"seeds": 2, "epochs": 2}
    studies["house_prices"] |= {"dataset": "synthetic", "folds": 2}
    for model in studies["house_prices"]["models"].values():
        model["epochs"] = 2
    studies["initialisation"] |= {"depths": 2, "images": 256, "epochs": 1}
    studies["k_fold"]["folds"] = 2


@pytest.fixture(scope="session")
def workspace(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Give a workspace on `digits` whose pipeline has run once and is committed."""
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    copy_code(root, folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"epochs": 2, "batch_size": 64, "variants": MODELS}
    params["data"]["dataset"] = "digits"
    params["sweeps"] = {"rates": {"variant": "softmax", "space": {"lr": [0.02, 0.1]}}}
    make_small(params["studies"])
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    log = folder.parent / "audit"
    log.mkdir()
    found = Workspace(folder, MODELS)
    found.environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_AUTHOR_NAME": "Tester",
        "GIT_AUTHOR_EMAIL": "tester@example.org",
        "GIT_COMMITTER_NAME": "Tester",
        "GIT_COMMITTER_EMAIL": "tester@example.org",
        "PYTHONPATH": str(AUDIT),
        "AUDIT_ROOT": str(folder),
        "AUDIT_LOG": str(log),
    }
    found.run("git", "init", "--quiet", "--initial-branch", "main")
    found.commit("Start")
    found.run("dvc", "repro")
    found.run("dvc", "repro", "stages/k_fold/dvc.yaml", "stages/sweep/dvc.yaml")
    found.commit("Run the pipeline")
    del found.environment["PYTHONPATH"]  # only the first run is watched
    return found
