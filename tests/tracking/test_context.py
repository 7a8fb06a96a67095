"""The commit and the diff give the checkout back; outside git there is nothing to give."""

import os
import subprocess
from pathlib import Path

import pytest

from refashion.base.errors import UserError
from refashion.tracking import context


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    (root / "models" / "mlp").mkdir(parents=True)
    git(root, "init", "-q")
    for name in ("params.yaml", "code.py", "gone.py", "dvc.lock", "models/mlp/record.json"):
        (root / name).write_text(f"{name}\n")
    (root / ".gitignore").write_text("ignored\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "start")
    return root


def test_outputs_and_ignored_files_are_no_changes(repository: Path) -> None:
    clean = context.gather(repository)
    assert clean.commit == git(repository, "rev-parse", "HEAD").strip()
    assert (clean.diff, clean.dirty) == (b"", False)
    for name in (
        *("dvc.lock", "models/mlp/record.json"),  # changed
        *("stages/k_fold/dvc.lock", "models/wide/record.json", "ignored"),  # new
    ):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text("other\n")
    assert context.gather(repository) == clean


def test_diff_gives_the_checkout_back(repository: Path, tmp_path: Path) -> None:
    git(repository, "config", "diff.noprefix", "true")
    (repository / "params.yaml").write_text("lr: 0.1\n")
    git(repository, "add", "params.yaml")  # staged, then changed again
    (repository / "params.yaml").write_text("lr: 0.2\n")
    (repository / "gone.py").unlink()
    (repository / "new folder").mkdir()
    (repository / "new folder" / "größe*.bin").write_bytes(bytes(range(256)))
    before = git(repository, "status", "--porcelain=2")
    origin = context.gather(repository)
    assert origin.dirty
    assert git(repository, "status", "--porcelain=2") == before
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    git(clone, "checkout", "-q", origin.commit or "")
    (tmp_path / "uncommitted.diff").write_bytes(origin.diff)
    git(clone, "apply", str(tmp_path / "uncommitted.diff"))
    assert contents(clone) == contents(repository)


def contents(root: Path) -> dict[str, bytes]:
    files = (f for f in root.rglob("*") if f.is_file() and ".git" not in f.parts)
    return {str(f.relative_to(root)): f.read_bytes() for f in files}


@pytest.mark.parametrize("flag", ["--assume-unchanged", "--skip-worktree"])
def test_changes_that_git_was_told_not_to_see(repository: Path, flag: str) -> None:
    names = ("params.yaml", "gone.py", "größe.txt")
    (repository / names[-1]).write_text("new\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "more")
    for _ in range(2):  # with both flags, too
        git(repository, "update-index", flag, *names)
        flag = "--assume-unchanged"
    assert not context.gather(repository).dirty
    (repository / "params.yaml").write_text("lr: 0.1\n")
    (repository / names[-1]).write_text("other\n")
    before = git(repository, "ls-files", "-v")
    seen = context.gather(repository).diff
    assert seen.count(b"diff --git") == 2 and b"+lr: 0.1" in seen and b"+other" in seen
    assert git(repository, "ls-files", "-v") == before


def test_files_that_a_sparse_checkout_leaves_out_are_no_changes(repository: Path) -> None:
    git(repository, "sparse-checkout", "set", "--no-cone", "/params.yaml", "/code.py")
    assert not (repository / "gone.py").exists()
    assert not context.gather(repository).dirty


@pytest.mark.parametrize("new", [False, True])
def test_a_change_in_the_instant_of_the_index_is_seen(repository: Path, new: bool) -> None:
    """Of the same size: git compares what is no older than the index, and trusts what is."""
    git(repository, "config", "core.trustctime", "false")  # which nobody can set back
    code, index = repository / "code.py", repository / ".git" / "index"
    os.utime(code, (1, 1))
    git(repository, "update-index", "--refresh")
    code.write_text("changed\n")
    for file in (code, index):
        os.utime(file, (1, 1))
    if new:
        (repository / "new.py").touch()  # to be announced in the index
    assert b"+++ b/code.py" in context.gather(repository).diff


def test_large_new_file_is_named_not_copied(repository: Path) -> None:
    (repository / "large.bin").write_bytes(b"x" * (context.LARGEST_UNTRACKED + 1))
    assert context.gather(repository).diff == b"# not included, over 1 MiB: large.bin\n"
    assert context.gather(repository).dirty


def test_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert context.gather(tmp_path).commit is None
    git(tmp_path, "init", "-q")
    assert context.gather(tmp_path).commit is None  # no commit yet
    monkeypatch.setenv("PATH", "")
    assert (context.gather(tmp_path).commit, context.gather(tmp_path).dirty) == (None, False)


def test_repository_that_git_refuses(repository: Path) -> None:
    (repository / ".git" / "HEAD").write_text("ref: refs/heads/master\n")
    (repository / ".git" / "config").write_text("[core\n")
    with pytest.raises(UserError, match=r"git rev-parse: .*config"):
        context.gather(repository)


def test_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert context.gather(tmp_path).experiment is None
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-hake")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "a" * 40)
    origin = context.gather(tmp_path)
    assert (origin.experiment, origin.baseline) == ("puffy-hake", "a" * 40)


def test_environment_names_python_and_packages(tmp_path: Path) -> None:
    first, *packages = context.gather(tmp_path).environment.splitlines()
    assert first.startswith("# Python 3.")
    assert any(p.startswith("torch==") for p in packages)
    assert packages == sorted(packages, key=str.lower)
