"""Names of revisions and of DVC's experiments: git's come first, and none is an option of git."""

import os
from pathlib import Path
from typing import Any

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import revisions, worktree
from refashion.reproduction.worktree import State


def test_experiments_of_one_name_are_told_apart(repository: Any) -> None:
    root: Path = repository.workspace.root
    first, start = repository.experiment("best"), repository.git("rev-parse", "HEAD")
    assert revisions.experiments(root) == {"best": (first, start)}
    later = repository.commit("Later")
    repository.change(seed=7)
    second = repository.experiment("best")
    assert revisions.experiments(root) == {
        f"best@{start[:7]}": (first, start),
        f"best@{later[:7]}": (second, later),
    }
    assert revisions.resolve("best", root) is None
    assert revisions.resolve(f"best@{start[:7]}", root) == first


def test_names_of_experiments_may_have_white_space(repository: Any) -> None:
    """A reference that is an option of git is none."""
    repository.git("update-ref", "refs/exps/--/output=params.yaml/evil", "HEAD")
    names = ["a\u3000b", "a\x85c", "a", os.fsdecode(b"caf\xe9")]
    found = {name: repository.experiment(name) for name in names}
    experiments = revisions.experiments(repository.workspace.root)
    assert {name: commit for name, (commit, _) in experiments.items()} == found


def test_an_experiment_does_not_hide_a_branch(repository: Any) -> None:
    root = repository.workspace.root
    head = repository.git("rev-parse", "HEAD")
    assert repository.experiment("main") != head
    assert revisions.resolve("main", root) == head
    assert [revisions.is_reference(name, root) for name in ("main", "HEAD", head, "x")] == [
        *(True, True, False, False)
    ]


def test_how_to_fetch_a_commit_that_is_missing(repository: Any, tmp_path: Path) -> None:
    commit = repository.git("rev-parse", "HEAD~1")
    origin, clone = repository.workspace.root, tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth=1", f"file://{origin}", str(clone))
    with pytest.raises(UserError, match=r"tag, or fetch old ones \(`git fetch --unshallow`\)$"):
        revisions.require(commit, clone)
    for missing, root, how in ((commit, clone, "--unshallow"), ("0" * 40, origin, "--all")):
        with pytest.raises(UserError, match=rf"fetch it \(`git fetch {how}`\)"):
            worktree.checkout(State(commit=missing), Workspace(root)).__enter__()
    with pytest.raises(UserError, match=r"name a commit, branch or tag$"):
        revisions.require("0" * 40, origin)


def test_what_git_tells_a_hook_is_not_passed_on(
    repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = repository.workspace.root
    monkeypatch.setenv("GIT_DIR", str(root / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", ".git/nothing")
    assert repository.git("rev-parse", "--show-toplevel") == str(root)
    assert not repository.git("diff", "--cached", "--name-only")
