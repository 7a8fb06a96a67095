"""The real pipeline at its smallest, in a git repository of its own: every stage, in seconds."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from code_copy import copy_code

MODELS = {
    "softmax": {"hidden": [], "lr": 0.02},
    "mlp": {"hidden": [32], "lr": 0.2},
}

ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "Tester",
    "GIT_AUTHOR_EMAIL": "tester@example.org",
    "GIT_COMMITTER_NAME": "Tester",
    "GIT_COMMITTER_EMAIL": "tester@example.org",
}
"""What commands need that work in a repository of their own."""


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


def start(root: Path, folder: Path, **environment: str) -> Workspace:
    """Commit the code of a checkout, with settings on `digits`, and no results yet."""
    copy_code(root, folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params |= {"epochs": 2, "batch_size": 64, "variants": MODELS}
    params["data"]["dataset"] = "digits"
    params["gates"] = [{"run": "mlp", "metric": "test_accuracy", "at_least": 0.5}]
    params["sweeps"] = {"rates": {"variant": "softmax", "space": {"lr": [0.02, 0.1]}}}
    make_small(params["studies"])
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    started = Workspace(folder, MODELS, ENVIRONMENT | environment)
    started.run("git", "init", "--quiet", "--initial-branch", "main")
    started.commit("Start")
    return started
