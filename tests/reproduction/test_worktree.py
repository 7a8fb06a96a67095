"""Checkouts: nothing of a commit or a diff reaches beyond them, and killed ones are swept."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import pipeline, revisions, worktree
from refashion.reproduction.worktree import PREFIX, State
from refashion.tracking import context

# --- links ------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Give a folder beside the repository, which stays as it was."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("the user's own\n")
    yield folder
    assert [file.name for file in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "the user's own\n"


def link(root: Path, name: str, target: str) -> None:
    """Make a link in the place of whatever is there."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def state_of(repository: Any, how: str) -> State:
    """What is in the working tree, as a commit or as a diff on the present one."""
    if how == "commit":
        return State(commit=repository.commit("Links"), params=b"{}\n", lock=b"{}\n")
    head = repository.git("rev-parse", "HEAD")
    repository.git("add", "--all", "--force", "--", ".", ":!.dvc/cache", ":!.dvc/tmp")
    diff = revisions.git("diff", "--cached", "--binary", "HEAD", folder=repository.workspace.root)
    repository.git("reset", "--quiet", "--hard", head)
    return State(commit=head, diff=diff, params=b"{}\n", lock=b"{}\n")


@pytest.mark.parametrize(
    ("name", "target", "how"),
    [
        ("params.yaml", "{outside}/file", "commit"),
        ("dvc.lock", "{outside}/missing", "diff"),
        ("models/mlp/record.json", "../../../../../../etc/passwd", "commit"),
        ("logs", "{outside}", "commit"),
        (".dvc/config", "{outside}/file", "commit"),
    ],
)
def test_links_that_leave_the_checkout_are_refused(
    repository: Any, outside: Path, name: str, target: str, how: str
) -> None:
    link(repository.workspace.root, name, target.format(outside=outside))
    state = state_of(repository, how)
    with (
        pytest.raises(UserError, match=rf"^{name}: is a link to [^\n]*; remove it from the run$"),
        worktree.checkout(state, repository.workspace),
    ):
        pytest.fail("it was lent")
    assert repository.git("worktree", "list").count("\n") == 0


def test_a_link_to_a_link_that_leaves(repository: Any, outside: Path) -> None:
    root = repository.workspace.root
    link(root, "way/a", "../b")
    link(root, "b", f"{outside}")
    with pytest.raises(UserError, match="is a link to"):
        worktree.checkout(state_of(repository, "commit"), repository.workspace).__enter__()


def test_links_inside_are_kept_and_not_written_through(repository: Any) -> None:
    root = repository.workspace.root
    link(root, "models/latest", "mlp")
    link(root, "round", "round")
    link(root, "dvc.lock", "dvc.yaml")
    pipeline = (root / "dvc.yaml").read_bytes()
    with worktree.checkout(state_of(repository, "commit"), repository.workspace) as checkout:
        assert (checkout.root / "models" / "latest" / "record.json").is_file()
        assert (checkout.root / "dvc.yaml").read_bytes() == pipeline
        lock = checkout.root / "dvc.lock"
        assert (lock.is_symlink(), lock.read_bytes()) == (False, b"{}\n")


def test_of_a_sparse_checkout_everything_is_brought_back(repository: Any) -> None:
    root = repository.workspace.root
    files = repository.git("ls-files").split("\n")
    repository.git("update-index", "--refresh")  # the copy has other times
    repository.git("sparse-checkout", "set", ".dvc", "stages")
    assert not (root / "models" / "mlp" / "record.json").exists()
    state = State(commit=repository.git("rev-parse", "HEAD"))
    with worktree.checkout(state, repository.workspace) as checkout:
        assert [name for name in files if not (checkout.root / name).is_file()] == []


def creation(*names: str, content: str = "mark", mode: int = 100644) -> bytes:
    """Diff that creates files."""
    parts = (
        f"diff --git a/{name} b/{name}\nnew file mode {mode}\n--- /dev/null\n+++ b/{name}\n"
        f"@@ -0,0 +1 @@\n+{content}\n\\ No newline at end of file\n"
        for name in names
    )
    return "".join(parts).encode()


@pytest.mark.parametrize(
    "name",
    [
        *(".git", ".git/hooks/post-checkout", ".GIT/config", "models/.git/config"),
        *("../outside/mark", "models/../../outside/mark", "{outside}/mark", "way/mark"),
    ],
)
def test_a_diff_reaches_nothing_but_the_checkout(repository: Any, outside: Path, name: str) -> None:
    diff = creation("way", content=str(outside), mode=120000)
    diff += creation(name.format(outside=outside))
    state = State(commit=repository.git("rev-parse", "HEAD"), diff=diff)
    git = sorted((repository.workspace.root / ".git").rglob("*"))
    with pytest.raises(UserError, match=r"^uncommitted changes of the run: do not apply[^\n]*$"):
        worktree.checkout(state, repository.workspace).__enter__()
    # Below the objects: git writes those of the index.
    assert [file for file in git if not file.exists()] == []
    assert not (repository.workspace.root / ".git" / "hooks" / "post-checkout").exists()


def test_nothing_of_a_commit_configures_or_replaces_dvc(repository: Any, tmp_path: Path) -> None:
    """Its remotes could get the user's passwords; and a module dvc would be run in place of DVC."""
    root, mark = repository.workspace.root, tmp_path / "mark"
    local = root / ".dvc" / "config.local"
    config = (root / ".dvc" / "config").read_text()
    hostile = f"[core]\n    remote = mine\n['remote \"mine\"']\n    url = {tmp_path}/hostile\n"
    for file in (root / ".dvc" / "config", local):
        file.write_text(f"{hostile}[cache]\n    dir = {tmp_path}/hostile\n")
    for module in ("dvc", "yaml"):
        (root / f"{module}.py").write_text(f"open({str(mark)!r}, 'w')\n")
    repository.git("add", "--all", "--force", str(local))
    commit = repository.commit("Hostile")
    local.unlink()
    (root / ".dvc" / "config").write_text(config)
    with worktree.checkout(State(commit=commit), repository.workspace) as checkout:
        pipeline.fetch_results(checkout)
        settings = [(checkout.root / ".dvc" / name).read_text() for name in ("config", local.name)]
        assert (checkout.root / "reports" / "evaluation" / "mlp").is_dir()
    assert settings[0] == config and "hostile" not in settings[1]
    assert not mark.exists() and not (tmp_path / "hostile").exists()


def test_a_path_of_any_letters(repository: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC itself writes its configuration in ASCII alone."""
    root = repository.workspace.root
    named = root.rename(root.with_name("pr\xfcfung, 1")).resolve()
    monkeypatch.setattr(tempfile, "tempdir", str(named.parent / "tempor\xe4r"))
    (named.parent / "tempor\xe4r").mkdir()
    commit = revisions.resolve("HEAD", named)
    assert commit
    with worktree.checkout(State(commit=commit), Workspace(named)) as checkout:
        pipeline.fetch_results(checkout)
        assert (checkout.root / "reports" / "evaluation" / "mlp").is_dir()


def test_a_project_in_a_folder_of_a_repository(repository: Any, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    project = shutil.copytree(repository.workspace.root, whole / "a" / "project")
    shutil.rmtree(project / ".git")
    (whole / "other.py").write_text("")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "Start")):
        revisions.git(*command, folder=whole)
    (project / "stages" / "new.py").write_text("new\n")
    (whole / "other.py").write_text("changed\n")
    origin = context.gather(project)
    assert origin.commit and origin.diff.count(b"diff --git") == 2
    state = State(commit=origin.commit, diff=origin.diff)
    with worktree.checkout(state, Workspace(project)) as checkout:
        assert (checkout.root / "stages" / "new.py").is_file()
        assert (checkout.root.parents[1] / "other.py").read_text() == "changed\n"
        pipeline.rerun(checkout, ["evaluate@mlp"], Workspace(project))
    assert not list((whole / ".git" / "worktrees").glob("*"))


def test_a_copy_of_the_project_that_git_ignores(repository: Any) -> None:
    """As the demo's: no commit has its folder, whose settings, lock and cache are its own."""
    (repository.workspace.root / ".gitignore").write_text("/build/\n")
    commit = repository.commit("Ignore builds")
    repository.git("checkout-index", "--all", "--prefix=build/demo/")
    demo = Workspace(repository.workspace.root / "build" / "demo")
    state = State(commit=commit, params=b"seed: 7\n", lock=b"{}\n")
    with worktree.checkout(state, demo) as checkout:
        assert (checkout.root / "stages" / "make.py").is_file()
        assert checkout.params_file.read_bytes() == b"seed: 7\n"
        local = (checkout.root / ".dvc" / "config.local").read_text()
        assert str(demo.root / ".dvc" / "cache") in local


@pytest.mark.parametrize(("name", "value"), [("core.autocrlf", "true"), ("core.eol", "crlf")])
def test_line_ends_are_those_of_the_commit(repository: Any, name: str, value: str) -> None:
    repository.git("config", name, value)
    if name == "core.eol":
        (repository.workspace.root / ".gitattributes").write_text("* text=auto\n")
        repository.commit("Attributes")
    state = State(commit=repository.git("rev-parse", "HEAD"))
    with worktree.checkout(state, repository.workspace) as checkout:
        assert b"\r" not in (checkout.root / "dvc.lock").read_bytes()


def test_changes_apply_whatever_git_is_set_to(
    repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.git("config", "diff.context", "0")
    monkeypatch.setenv("GIT_DIFF_OPTS", "-u0")
    code = repository.workspace.root / "stages" / "make.py"
    code.write_text(code.read_text().replace("import os\n", "import os  # changed\n"))
    origin = context.gather(repository.workspace.root)
    assert origin.commit
    state = State(commit=origin.commit, diff=origin.diff)
    with worktree.checkout(state, repository.workspace) as checkout:
        assert (checkout.root / "stages" / "make.py").read_text() == code.read_text()


def test_what_dvc_would_fetch_from_elsewhere_is_refused(repository: Any, outside: Path) -> None:
    """What it keeps beside the pipeline is no import."""
    text = "outs:\n- md5: 0123456789abcdef0123456789abcdef\n  path: deps.csv\n"
    (repository.workspace.root / "deps.csv.dvc").write_text(text)
    with worktree.checkout(State(commit=repository.commit("Add")), repository.workspace):
        pass
    text = f"deps:\n- path: {outside}\nouts:\n- path: raw\n"
    (repository.workspace.root / "data" / "raw.dvc").write_text(text)
    repository.git("add", "--force", "data/raw.dvc")
    state = State(commit=repository.commit("Import"))
    with (
        pytest.raises(UserError, match=r"^data/raw\.dvc: imports what this repository does not"),
        worktree.checkout(state, repository.workspace),
    ):
        pass


def test_no_path_of_a_lock_is_an_option_of_dvc(repository: Any, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    pipeline.fetch([f"--cprofile-dump={victim}"], repository.workspace.root)
    assert not victim.exists()


# --- sweep ------------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from refashion.base.workspace import Workspace
from refashion.reproduction import worktree
workspace = Workspace(Path.cwd())
with worktree.checkout(worktree.State(commit=sys.argv[1]), workspace) as checkout:
    print(checkout.root, flush=True)
    time.sleep(600)
"""


def entries(repository: Any) -> list[str]:
    """What git keeps of checkouts."""
    return sorted(path.name for path in (repository.workspace.root / ".git").glob("worktrees/*"))


def test_a_checkout_is_swept_once_its_process_was_killed(repository: Any, temporary: Path) -> None:
    head = repository.git("rev-parse", "HEAD")
    holding = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, head],
            cwd=repository.workspace.root,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        killed, alive = (Path(process.stdout.readline().strip()) for process in holding)
        assert worktree.sweep(repository.workspace) == []
        holding[0].kill()
        holding[0].wait()
        assert killed.is_dir() and entries(repository) == sorted([killed.name, alive.name])
        state = State(commit=head)
        with worktree.checkout(state, repository.workspace) as checkout:
            assert not killed.parent.exists()
            assert entries(repository) == sorted([alive.name, checkout.root.name])
        assert alive.is_dir() and entries(repository) == [alive.name]
        holding[1].send_signal(signal.SIGINT)
        holding[1].wait()
        assert entries(repository) == [] and list(temporary.glob(f"{PREFIX}*")) == []
    finally:
        for process in holding:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("text", [None, "", "/gone/refashion/refashion/.git\n"])
def test_what_git_has_left_half_made_is_swept(
    repository: Any, temporary: Path, text: str | None
) -> None:
    """Locked by git, which was killed while it made a checkout; what is not ours stays."""
    repository.git("worktree", "add", "--quiet", "--detach", str(temporary / "own"))
    folder = repository.workspace.root / ".git" / "worktrees"
    swept = [folder / f"{PREFIX}killed", temporary / f"{PREFIX}killed"]
    kept = [folder / "refashion-another.machine-killed", temporary / "refashion-another"]
    for path in (*swept, *kept):
        path.mkdir()
        (path / "locked").write_text("initializing")
        if text is not None and path != swept[1]:
            (path / "gitdir").write_text(text)
    assert sorted(worktree.sweep(repository.workspace)) == sorted(swept)
    assert worktree.sweep(repository.workspace) == []
    assert all(path.is_dir() for path in kept) and (folder / "own").is_dir()


def test_sweeping_and_lending_at_once(repository: Any, temporary: Path) -> None:
    def lend(_: int) -> None:
        with worktree.temporary_folder() as folder:
            (folder / "a").touch()
            os.sched_yield()
            assert [file.name for file in folder.iterdir()] == ["a"]

    with ThreadPoolExecutor(4) as pool:
        lent = pool.map(lend, range(200))
        swept = [worktree.sweep(repository.workspace) for _ in range(20)]
        list(lent)
    assert list(temporary.glob(f"{PREFIX}*")) == []
    assert all(path.name.startswith(PREFIX) for paths in swept for path in paths)
