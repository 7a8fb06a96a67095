"""A repository whose pipeline runs in a second, with its runs committed and published."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import Run

from refashion import cli
from refashion.base.workspace import Workspace
from refashion.pictures import of_run
from refashion.reproduction import pipeline, republish, revisions
from refashion.tracking import store

TINY = Path(__file__).with_name("tiny")
VARIANTS = {"softmax": {"hidden": [], "lr": 0.1}, "mlp": {"hidden": [32], "lr": 0.2}}


@dataclass(frozen=True)
class Repository:
    """A git repository with a workspace in it."""

    workspace: Workspace

    def git(self, *arguments: str) -> str:
        return revisions.git(*arguments, folder=self.workspace.root).decode().strip()

    def commit(self, message: str) -> str:
        """Commit everything; the full hash."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def change(self, **changes: Any) -> None:
        """Change top-level keys of params.yaml."""
        file = self.workspace.params_file
        settings = yaml.safe_load(file.read_text()) | changes
        file.write_text(yaml.safe_dump(settings, sort_keys=False))

    def dvc(self, *arguments: str) -> None:
        pipeline.dvc(*arguments, "--quiet", folder=self.workspace.root)

    def experiment(self, name: str) -> str:
        """Commit everything as an experiment of DVC, then go back in git; the full hash."""
        parent = self.git("rev-parse", "HEAD")
        commit = self.commit(name)
        self.git("update-ref", f"refs/exps/{parent[:2]}/{parent[2:]}/{name}", commit)
        self.git("reset", "--quiet", "--hard", parent)
        return commit

    def refashion(self, *arguments: str) -> Result:
        """Run the command on this workspace."""
        return CliRunner().invoke(cli.main, arguments, obj=self.workspace)

    def refused(self, *arguments: str) -> str:
        """Run a command that is refused; its answer, of one line."""
        done = self.refashion(*arguments)
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.output
        return done.stderr

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{store.default_database(self.workspace)}")

    def published(self, name: str) -> Run:
        """The newest published run of a name."""
        ids = [e.experiment_id for e in self.client.search_experiments()]
        return self.client.search_runs(ids, f"tags.name = '{name}'")[0]


def prepare(patch: pytest.MonkeyPatch) -> None:
    """Let git know who commits, and stages the code under test; draw nothing, which takes long."""
    for role in ("AUTHOR", "COMMITTER"):
        patch.setenv(f"GIT_{role}_NAME", "Tester")
        patch.setenv(f"GIT_{role}_EMAIL", "tester@example.org")
    patch.setenv("PYTHONPATH", str(Workspace.here().root / "src"))
    patch.setattr(of_run, "draw", lambda run, workspace: {})


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Give the repository that the others are copies of."""
    root = shutil.copytree(TINY, tmp_path_factory.mktemp("original") / "project")
    shutil.copyfile(Workspace.here().params_file, root / "params.yaml")
    (root / ".gitignore").write_text("/data/\n/reports/evaluation/\n/logs/\n/mlflow*\n")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    repository = Repository(Workspace(root))
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        repository.git("init", "--quiet", "--initial-branch", "main")
        repository.change(variants=VARIANTS, gates=[], sweeps={})
        repository.commit("Start")
        repository.dvc("repro")
        repository.commit("Run the pipeline")
        with store.connect(repository.workspace) as connected:
            outcomes = list(republish.republish(connected, repository.workspace))
        assert [outcome["outcome"] for outcome in outcomes] == ["published"] * 3
    return repository


@pytest.fixture
def repository(original: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Give a copy that a test may change."""
    prepare(monkeypatch)
    return Repository(Workspace(shutil.copytree(original.workspace.root, tmp_path / "project")))


GPG = r"""#!/bin/sh
cat > /dev/null
printf '\n[GNUPG:] SIG_CREATED x\ngpg: Good\tsignature\n' >&2
printf -- '-----BEGIN PGP SIGNATURE-----\n\nx\n-----END PGP SIGNATURE-----\n'
"""


@pytest.fixture
def gpg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that signs anything, and finds every signature good."""
    program = tmp_path_factory.mktemp("gpg") / "gpg"
    program.write_text(GPG)
    program.chmod(0o700)
    return str(program)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary ones, of this process and of those it starts, that no other sweeps."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path
