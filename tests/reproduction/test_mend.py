"""What killed processes leave in a checkout is found and put right, and nothing else is touched."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from threading import Timer

import pytest
from click.testing import CliRunner
from dvc.exceptions import ReproductionError
from dvc.lock import make_lock
from dvc.repo import Repo
from dvc_objects import fs
from scmrepo.git import Git

from refashion import cli
from refashion.base import files
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace
from refashion.reproduction import lockfile, mend, processes

AUTHOR = ("-c", "user.name=Tester", "-c", "user.email=tester@example.org")
ROOT = Path(__file__).parents[2]
SOUND = b"schema: '2.0'\nstages:\n  a:\n    cmd: x\n    outs:\n    - path: y\n      md5: abc\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Workspace:
    """A checkout of git and DVC with two committed locks."""
    (tmp_path / "stages" / "sweep").mkdir(parents=True)
    for name in ("dvc.lock", "stages/sweep/dvc.lock"):
        (tmp_path / name).write_bytes(SOUND)
    for command in (("init", "-qb", "main"), ("add", "-A"), (*AUTHOR, "commit", "-qm", "Start")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return Workspace(tmp_path)


def mended(checkout: Workspace) -> list[str]:
    done = CliRunner().invoke(cli.main, ["mend"], obj=checkout)
    assert done.exit_code == 0, done.output
    assert list(mend.faults(checkout)) == []
    return done.stdout.splitlines()


def dead() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_where_nothing_is_wrong_nothing_is_done(checkout: Workspace) -> None:
    (checkout.root / ".dvc/tmp/rwlock").write_text('{"read": {"x": []}}')
    assert mended(checkout) == ["there is nothing to mend"]


@pytest.mark.parametrize("content", [b"", b'{"read": {', b"[]", b'{"other": 1}', b"\xff"])
def test_damaged_locks_of_dvc_are_removed(checkout: Workspace, content: bytes) -> None:
    (checkout.root / ".dvc/tmp/exps").mkdir()
    for name in (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock"):
        (checkout.root / name).write_bytes(content)
        assert mended(checkout) == [f"{name}: is damaged: removed"]
        assert not (checkout.root / name).exists()


@pytest.mark.ci
def test_locks_that_are_hard_links_go_unless_dvc_is_at_work(checkout: Workspace) -> None:
    (checkout.root / ".dvc/config").write_text("[core]\n    hardlink_lock = true\n")
    lock = checkout.root / ".dvc/tmp/lock"
    code = (
        "from dvc.lock import make_lock\n"
        f"lock = make_lock({str(lock)!r}, tmp_dir={str(lock.parent)!r}, hardlink_lock=True)\n"
        "lock.lock(); print(flush=True); input()"
    )
    holder = [sys.executable, "-c", code, "-m", "dvc"]  # by which it is known
    pipe = subprocess.PIPE
    with subprocess.Popen(holder, cwd=lock.parent, stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline()
        with pytest.raises(UserError, match="is running"), mend._locked(lock, checkout):
            pass  # it has waited, so the lock is not new
        assert mended(checkout) == ["there is nothing to mend"]
        process.kill()
    claim = lock.read_text()
    assert mended(checkout) == [
        f"{os.path.relpath(file, checkout.root)}: of a process that was killed: removed"
        for file in (claim, lock)
    ]
    with mend._locked(lock, checkout):
        assert lock.stat().st_nlink == 2
    assert not lock.exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"schema: '2.0'\n", SOUND[:-9] + b"\xff", b"a: [", b"- 1"),
        SOUND + b"    params: {p: {day: 2001-99-99}}\n",
        # cut off in a stage's params or a file's digest, or merged so that a stage stands twice
        *(
            SOUND + b"    params:\n",
            SOUND + b"      hash:\n",
            SOUND + SOUND[SOUND.index(b"  a:") :],
        ),
    ],
)
def test_damaged_locks_of_pipelines_are_put_back(checkout: Workspace, content: bytes) -> None:
    names = ("dvc.lock", "stages/sweep/dvc.lock")
    for name in names:
        (checkout.root / name).write_bytes(content)
    told = CliRunner().invoke(cli.main, ["mend", "--check"], obj=checkout)
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [f"{n}: is damaged; run `refashion mend`" for n in names]
    assert all((checkout.root / name).read_bytes() == content for name in names)
    assert mended(checkout) == [f"{name}: is damaged: put back as in HEAD" for name in names]
    assert all((checkout.root / name).read_bytes() == SOUND for name in names)


def test_a_damaged_lock_that_git_does_not_know_goes(checkout: Workspace) -> None:
    new = checkout.root / "stages" / "k_fold" / "dvc.lock"
    new.parent.mkdir()
    new.write_bytes(b"")
    assert mended(checkout) == ["stages/k_fold/dvc.lock: is damaged: removed; DVC writes it anew"]
    assert not new.exists()


@pytest.fixture
def merging(checkout: Workspace) -> Workspace:
    """A checkout in which a merge has left conflicts."""
    (checkout.root / "dvc.yaml").touch()
    for number, name in enumerate(("base", "other", "main")):
        git(checkout, "checkout", "--quiet", "-B", name, "HEAD" if name == "base" else "base")
        (checkout.root / "dvc.lock").write_bytes(SOUND.replace(b"abc", b"%03d" % number))
        checkout.params_file.write_text(f"lr: {number}\n")
        git(checkout, "add", "--all")
        git(checkout, "commit", "-qm", name)
    subprocess.run(["git", *AUTHOR, "merge", "-q", "other"], cwd=checkout.root)
    return checkout


def test_what_is_merged_by_hand_stays(merging: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("dvc.lock", "params.yaml")
    advice = [f"{n}: has merge conflicts; resolve them, and `git add {n}`" for n in names]
    monkeypatch.chdir(merging.root)
    for left in ("as git left it", "", "wrong: ["):
        contents = [file.read_text() for file in map(merging.root.joinpath, names)]
        if left != "as git left it":
            contents = [left] * 2
            for name in names:
                (merging.root / name).write_text(left)
        for command, code in ((["mend"], 0), (["mend", "--check"], 1)):
            done = CliRunner().invoke(cli.main, command, obj=merging)
            assert (done.exit_code, done.stdout.splitlines()) == (code, advice)
        assert contents == [(merging.root / name).read_text() for name in names]
    done = CliRunner().invoke(cli.main, ["which", "abcdef"])
    assert done.stderr.splitlines()[-2:] == advice


def test_conflicts_that_were_staged_stay(merging: Workspace) -> None:
    git(merging, "add", "--all")
    lock = merging.root / "dvc.lock"
    content = lock.read_bytes()
    done = CliRunner().invoke(cli.main, ["mend"], obj=merging)
    assert done.stdout.startswith("dvc.lock: has merge conflicts") and lock.read_bytes() == content


def test_temporary_files_of_the_dead_go_and_those_of_the_living_stay(checkout: Workspace) -> None:
    folder = checkout.models / "mlp"
    folder.mkdir(parents=True)
    host = platform.node()
    gone = [folder / f".history.csv.{host}.{dead()}.tmp"]
    stay = [
        folder / f".history.csv.{host}.mine.tmp",
        folder / f".history.csv.{host}.{os.getpid()}.tmp",
        folder / f".history.csv.another-{host}.{dead()}.tmp",
        folder / "history.csv",
    ]
    for file in [*gone, *stay]:
        file.write_text("")
    assert len(mended(checkout)) == len(gone)
    assert sorted(folder.iterdir()) == sorted(stay)


def test_temporary_files_of_dvc_go_once_it_has_done_with_them(
    checkout: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [checkout.root / name for name in ("data", "models/mlp", ".dvc/cache/files/md5")]
    left = [folder / fs.utils.tmp_fname() for folder in folders]
    own = checkout.root / "data" / ".own.tmp"
    for file in [*left, own]:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(files, "SOON", 60.0)
    assert mended(checkout) == ["there is nothing to mend"]
    monkeypatch.setattr(files, "SOON", -60.0)
    assert sorted(mended(checkout)) == sorted(
        f"{checkout.relative(file)}: of a process that was killed: removed" for file in left
    )
    assert own.exists() and not any(map(Path.exists, left))


def test_a_cache_elsewhere_may_be_in_use_on_another_machine(
    checkout: Workspace, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    (checkout.root / ".dvc" / "config").write_text(f"[cache]\n    dir = {cache}\n")
    file, folder = cache / "files" / fs.utils.tmp_fname(), cache / "runs" / "ab" / "abc"
    for parent in (file.parent, folder):
        parent.mkdir(parents=True)
    file.touch()
    os.utime(folder, (time.time() - 600,) * 2)
    monkeypatch.setattr(files, "SOON", -60.0)
    assert mended(checkout) == ["there is nothing to mend"]
    monkeypatch.setattr(mend, "ELSEWHERE", -60.0)
    assert len(mended(checkout)) == 2 and not file.exists() and not folder.exists()


@pytest.mark.parametrize(
    "name", ["index.lock", "HEAD.lock", "refs/exps/ab/cd/rate.lock", "objects/ab/cdef.lock"]
)
def test_locks_of_git_go_unless_a_process_has_them_open(checkout: Workspace, name: str) -> None:
    lock = checkout.root / ".git" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w"):
        os.utime(lock, (0, 0))
        assert mended(checkout) == ["there is nothing to mend"]
    assert mended(checkout) == [f".git/{name}: of a process that was killed: removed"]
    lock.touch()
    Timer(0.3, lock.unlink).start()  # the process that made it is done with it
    assert mended(checkout) == ["there is nothing to mend"]
    lock.touch()
    assert mended(checkout) == [f".git/{name}: of a process that was killed: removed"]


def test_what_another_user_left_stays(checkout: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose processes cannot be looked into."""
    lock = checkout.root / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    for user in (os.getuid() + 1, os.getuid()):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert lock.exists()
        mended(checkout)
    assert not lock.exists()


def test_names_of_processes_may_be_cut_inside_a_character(tmp_path: Path) -> None:
    name = "a" + "\u5b57" * 5
    code = f"open('/proc/self/comm', 'wb').write({name.encode()!r}); print(flush=True); input()"
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=pipe, stdout=pipe
    ) as process:
        assert process.stdout and process.stdout.readline()
        assert list(processes.users(tmp_path)) == [os.fsdecode(name.encode()[:15])]
        process.communicate(b"\n")


def test_the_lock_of_a_commit_whose_message_is_being_written_stays(checkout: Workspace) -> None:
    (checkout.root / "dvc.lock").write_bytes(SOUND + b"\n")
    command = ["git", *AUTHOR, "commit", "--all"]
    editor = {**os.environ, "GIT_EDITOR": "touch .git/begun; sleep 60 #"}
    lock, begun = (checkout.root / ".git" / name for name in ("index.lock", "begun"))
    with subprocess.Popen(command, cwd=checkout.root, env=editor, start_new_session=True) as git:
        try:
            while not begun.exists():
                assert git.poll() is None
            os.utime(lock, (0, 0))
            assert mended(checkout) == ["there is nothing to mend"]
        finally:
            os.killpg(git.pid, signal.SIGKILL)
    assert mended(checkout) == [".git/index.lock: of a process that was killed: removed"]


def git(checkout: Workspace, *words: str) -> str:
    return subprocess.check_output(["git", *AUTHOR, *words], cwd=checkout.root, text=True)


def detach(checkout: Workspace) -> None:
    """Detach HEAD as a `dvc exp run` does."""
    scm = Git(str(checkout.root))
    scm.checkout("HEAD", detach=True)
    scm.close()


def staged(checkout: Workspace, name: str) -> str:
    """Stage another content of a file; the line of its being unstaged."""
    file = checkout.root / name
    file.write_text(f"{file.read_text()}# {file.stat().st_size}\n" if file.exists() else "lr: 1\n")
    git(checkout, "add", name)
    return f"{name}: staged by a `dvc exp run` that was killed: unstaged"


def test_settings_that_an_experiment_has_staged_are_unstaged(checkout: Workspace) -> None:
    staged(checkout, "params.yaml")
    assert mended(checkout) == ["there is nothing to mend"]  # by the user: a branch is there
    git(checkout, "checkout", "--quiet", "--detach")
    assert mended(checkout) == ["there is nothing to mend"]  # by the user: so is HEAD
    git(checkout, "checkout", "--quiet", "main")
    detach(checkout)
    checkout.params_file.write_text("lr: 0.1\n")
    rwlocks = (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")
    (checkout.root / ".dvc" / "tmp" / "exps").mkdir()
    for name in rwlocks:
        (checkout.root / name).touch()
    lock = checkout.root / ".dvc" / "tmp" / "lock"
    with make_lock(str(lock), tmp_dir=str(lock.parent)):
        done = CliRunner().invoke(cli.main, ["mend"], obj=checkout)
        assert done.exit_code == 2 and "a DVC command is running" in done.stderr
        assert done.stdout.splitlines() == [f"{name}: is damaged: removed" for name in rwlocks]
    own = checkout.root / ".dvc" / "tmp" / "repro.dat"
    own.touch()
    git(checkout, "add", "--force", str(own))
    (line,) = mended(checkout)
    assert line == (
        ".dvc/tmp/repro.dat, params.yaml: staged by a `dvc exp run` that was killed: unstaged"
    )
    assert git(checkout, "diff", "--cached") == ""
    assert checkout.params_file.read_text() == "lr: 0.1\n"


def test_a_file_of_its_own_tells_that_an_experiment_has_staged_the_settings(
    checkout: Workspace,
) -> None:
    """It leaves nothing in the log of a HEAD that was detached before."""
    git(checkout, "checkout", "--quiet", "--detach")
    detach(checkout)
    staged(checkout, "params.yaml")
    assert mended(checkout) == ["there is nothing to mend"]
    (checkout.root / mend.QUEUED).touch()
    git(checkout, "add", "--force", mend.QUEUED)
    (line,) = mended(checkout)
    assert line.startswith(f"{mend.QUEUED}, params.yaml: staged by ")


def test_what_is_staged_while_git_is_at_work_stays(checkout: Workspace) -> None:
    detach(checkout)
    told = staged(checkout, "params.yaml")
    heads = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")
    for state in ("rebase-merge", "rebase-apply", *heads, "BISECT_LOG"):
        (checkout.root / ".git" / state).touch()
        assert not list(mend.faults(checkout)), state
        (checkout.root / ".git" / state).unlink()
    assert mended(checkout) == [told]


def test_signed_commits_are_no_entries_of_the_log(checkout: Workspace, gpg: str) -> None:
    git(checkout, "config", "gpg.program", gpg)
    git(checkout, "config", "log.showSignature", "true")
    git(checkout, "commit", "-qS", "--amend", "-m", "Signed")
    detach(checkout)
    assert mended(checkout) == ["there is nothing to mend"]
    told = staged(checkout, "params.yaml")
    assert mended(checkout) == [told]


def test_a_file_that_an_experiment_has_renamed_is_unstaged(checkout: Workspace) -> None:
    """Names of files may be no text."""
    git(checkout, "update-ref", mend.RUNS, "HEAD")
    detach(checkout)
    git(checkout, "mv", "dvc.lock", os.fsdecode(b"caf\xe9.txt"))
    told = "caf\\udce9.txt, dvc.lock: staged by a `dvc exp run` that was killed: unstaged"
    assert mended(checkout) == [told]


def test_results_that_an_experiment_has_staged_are_unstaged(checkout: Workspace) -> None:
    git(checkout, "checkout", "--quiet", "--detach")
    told = staged(checkout, "dvc.lock")
    assert mended(checkout) == ["there is nothing to mend"]  # no experiment runs
    git(checkout, "update-ref", mend.RUNS, "HEAD")
    process = checkout.root / ".dvc/tmp/exps/run/workspace/workspace.json"
    process.parent.mkdir(parents=True)
    process.write_text(json.dumps({"pid": os.getpid()}))
    assert mended(checkout) == ["there is nothing to mend"]  # it goes on
    process.write_text(json.dumps({"pid": dead()}))
    assert mended(checkout) == [told]
    assert git(checkout, "diff", "--cached") == ""


@pytest.mark.parametrize("is_linked", [False, True])
def test_what_is_staged_while_an_experiment_runs_in_another_worktree_stays(
    checkout: Workspace, tmp_path_factory: pytest.TempPathFactory, is_linked: bool
) -> None:
    linked = Workspace(tmp_path_factory.mktemp("worktrees") / "linked")
    git(checkout, "checkout", "--quiet", "--detach")
    git(checkout, "worktree", "add", "--quiet", "--detach", str(linked.root))
    (linked.root / ".dvc" / "tmp").mkdir(parents=True)
    git(checkout, "update-ref", mend.RUNS, "HEAD")
    here = linked if is_linked else checkout
    staged(here, "dvc.lock")
    assert mended(here) == ["there is nothing to mend"]
    git(here, "checkout", "--quiet", "--force", "-B", "own")
    detach(here)
    told = staged(here, "dvc.lock")
    assert mended(here) == [told]  # its own log tells that one was killed here


def test_an_index_that_an_experiment_has_not_put_back_is(checkout: Workspace) -> None:
    for reason in ("checkout: moving", "dvc: Restore HEAD to 'main'"):
        git(checkout, "checkout", "--quiet", "--detach")
        told = staged(checkout, "dvc.lock")
        git(checkout, "symbolic-ref", "-m", reason, "HEAD", "refs/heads/main")
        expected = told if "dvc" in reason else "there is nothing to mend"
        assert mended(checkout) == [expected]
    assert git(checkout, "diff", "--cached") == ""
    staged(checkout, "dvc.lock")
    assert mended(checkout) == ["there is nothing to mend"]  # by the user, afterwards


@pytest.mark.parametrize(("left", "cache"), [("", None), ("", "elsewhere"), (".a.tmp", None)])
def test_what_dvc_has_half_saved_of_a_run_goes(
    checkout: Workspace, left: str, cache: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC itself fails on it."""
    monkeypatch.chdir(checkout.root)
    with Repo.init(str(checkout.root), no_scm=True, force=True) as repo, repo.config.edit() as new:
        new["cache"] |= {"dir": str(checkout.root / cache)} if cache else {}
    stage = "{cmd: cp source copy, deps: [source], outs: [copy]}"
    (checkout.root / "dvc.yaml").write_text(f"stages: {{a: {stage}}}")
    (checkout.root / "source").write_text("1")

    def run() -> None:
        (checkout.root / "dvc.lock").unlink(missing_ok=True)
        with Repo(str(checkout.root)) as repo:
            repo.reproduce()

    run()
    (entry,) = (checkout.root / (cache or ".dvc/cache")).glob("runs/*/*/*")
    folder = entry.parent
    entry.unlink()
    if left:
        (folder / left).write_text("cmd: x\n")
    os.utime(folder, (time.time() + 60,) * 2)
    assert mended(checkout) == ["there is nothing to mend"]  # somebody may be at work
    os.utime(folder, (0, 0))
    with pytest.raises(ReproductionError):
        run()
    os.utime(folder, (0, 0))
    told = os.path.relpath(folder, checkout.root)
    assert mended(checkout) == [f"{told}: was half saved: removed"]
    run()
    assert entry.exists()
    os.utime(folder, (0, 0))
    assert mended(checkout) == ["there is nothing to mend"]


@pytest.mark.parametrize("is_staged", [False, True])
@pytest.mark.parametrize("left", [0, 300])
def test_settings_that_are_cut_off_are_put_back(
    checkout: Workspace, left: int, is_staged: bool
) -> None:
    """Git empties a file before it writes it."""
    whole = (ROOT / "params.yaml").read_bytes()
    checkout.params_file.write_bytes(whole)
    git(checkout, "add", "params.yaml")
    git(checkout, "commit", "-qm", "Settings")
    git(checkout, "checkout", "--quiet", "--detach")
    assert mended(checkout) == ["there is nothing to mend"]
    if is_staged:
        whole = whole.replace(b"seed: 0", b"seed: 5", 1)
        checkout.params_file.write_bytes(whole)
        git(checkout, "add", "params.yaml")
    checkout.params_file.write_bytes(whole[:left])
    first, *_ = mended(checkout)
    assert first == "params.yaml: is cut off: put back as git has it"
    assert checkout.params_file.read_bytes() == whole
    checkout.params_file.write_text("lr: 0.1\n")  # not legal, but the user's own
    assert mended(checkout) == ["there is nothing to mend"]


@pytest.mark.parametrize("left", ["a pipe", "a folder", "nothing"])
def test_settings_that_are_no_file_are_left_alone(checkout: Workspace, left: str) -> None:
    file = checkout.params_file
    file.write_text("lr: 1\n")
    git(checkout, "add", "params.yaml")
    file.unlink()
    if left == "nothing":
        assert mended(checkout) == ["params.yaml: is cut off: put back as git has it"]
    elif left == "a folder":
        file.mkdir()
        assert mended(checkout) == ["there is nothing to mend"]
    else:
        os.mkfifo(file)
        writer = threading.Thread(target=lambda: file.open("wb").close())  # ends a reading
        writer.start()
        told = mended(checkout)
        os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))
        writer.join()
        assert told == ["there is nothing to mend"]


def test_without_git(checkout: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (checkout.params_file, checkout.root / "dvc.lock"):
        file.write_text("")
    monkeypatch.setenv("PATH", "")
    assert mended(checkout) == ["dvc.lock: is damaged: removed; DVC writes it anew"]


def test_what_the_system_refuses_is_told(
    checkout: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: Path, _: Workspace) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(lock))

    (checkout.root / ".dvc/tmp/rwlock").touch()
    monkeypatch.setattr(mend, "_remove", refuse)
    done = CliRunner().invoke(cli.main, ["mend"], obj=checkout)
    assert done.exit_code == 2 and "rwlock: Permission denied; mend its" in done.stderr


@pytest.mark.parametrize("parent", [".dvc/tmp/exps", ".dvc/tmp/exps/standalone"])
def test_folders_of_experiments_go_unless_a_process_works_there(
    checkout: Workspace, parent: str
) -> None:
    left, used = (checkout.root / parent / name for name in ("tmpleft", "tmpused"))
    for folder in (left, used):
        (folder / "inner").mkdir(parents=True)
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, cwd=used / "inner", stdin=subprocess.PIPE) as process:
        assert mended(checkout) == [f"{parent}/tmpleft: of an experiment that was killed: removed"]
        assert used.exists() and not left.exists()
        process.communicate(b"\n")


@pytest.mark.parametrize("as_module", [False, True])
def test_folders_of_experiments_stay_while_dvc_is_at_work(
    checkout: Workspace, as_module: bool
) -> None:
    """It makes one some time before it works there."""
    folder = checkout.root / ".dvc/tmp/exps/tmpnew"
    folder.mkdir(parents=True)
    dvc = checkout.root / ("dvc.py" if as_module else "dvc")
    dvc.write_text(f"#!{sys.executable}\nprint(flush=True)\ninput()\n")
    dvc.chmod(0o700)
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "dvc"] if as_module else [str(dvc)]
    with subprocess.Popen(command, cwd=checkout.root, stdin=pipe, stdout=pipe) as process:
        assert process.stdout and process.stdout.readline()
        assert mended(checkout) == ["there is nothing to mend"]
        process.communicate(b"\n")
    assert folder.exists() and list(mend.faults(checkout))


def test_outputs_without_a_digest_are_left_out() -> None:
    outs = [
        {"path": "a"},
        {"path": "s3://b", "etag": "x"},
        {"path": "c", "md5": "y"},
        {"path": "d", "md5": None},
    ]
    assert lockfile.outputs({"stage": {"cmd": "x", "outs": outs}}) == {"c": "y"}


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="null: cannot be read"):
        lockfile.read(Path("/dev/null"))
