"""The `refashion` command itself: help, exit codes and what goes where."""

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from refashion import cli
from refashion.base.errors import UserError
from refashion.base.workspace import Workspace


@click.command()
@click.argument("kind")
def fail(kind: str) -> None:
    raise {
        "usage": UserError("lr: must be a number"),
        "interrupt": KeyboardInterrupt(),
        "defect": ZeroDivisionError(),
    }[kind]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["fail", "usage"], 2, "error: lr: must be a number\n"),
        (["fail", "interrupt"], 130, "interrupted\n"),
        (["fail", "defect"], 1, ""),
        (["--debug", "fail", "usage"], 1, ""),
        (["--debug", "fail", "interrupt"], 130, "interrupted\n"),
    ],
)
def test_exit_codes(
    arguments: list[str], code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.main.commands, "fail", fail)
    done = CliRunner().invoke(cli.main, arguments)
    assert (done.exit_code, done.stdout, done.stderr) == (code, "", told)


def test_a_command_works_on_the_checkout_that_one_stands_in(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any folder in it, with whatever code; in none there is help alone."""
    show = cli.main.command_class(
        "show", callback=click.pass_obj(lambda w: print(w.root)), help="Example: refashion show"
    )
    monkeypatch.setitem(cli.main.commands, "show", show)
    monkeypatch.chdir(root / "stages" / "k_fold")  # has a dvc.yaml of its own
    done = CliRunner().invoke(cli.main, ["show"])
    assert (done.stdout, done.stderr) == (f"{root}\n", "")
    (tmp_path / "clone" / "docs").mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / "clone" / name).touch()
    monkeypatch.chdir(tmp_path / "clone" / "docs")
    done = CliRunner().invoke(cli.main, ["show"])
    clone = tmp_path / "clone"
    assert (done.stdout, done.stderr) == (
        f"{clone}\n",
        f"working on {clone} with the code of {root}\n",
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path}: is in no checkout of this project"):
        Workspace.here()
    assert CliRunner().invoke(cli.main, ["show"]).exit_code == 2
    assert CliRunner().invoke(cli.main, ["show", "--help"]).exit_code == 0


@pytest.mark.parametrize("yes", [True, False])
def test_an_answer_is_an_exit_code_too(yes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    for as_json, printed in ((False, "one\ntwo\n"), (True, '{\n  "a": 1,\n  "b": 2\n}\n')):
        with pytest.raises(SystemExit) as end:
            cli.answer({"b": 2, "a": 1}, ["one", "two"], as_json, yes)
        assert end.value.code == (not yes)
        assert capsys.readouterr().out == printed


def test_json_has_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.answer({"a": float("inf"), "b": [float("nan")]}, [], True)
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        **{"a": "Infinity", "b": ["NaN"]}
    }


def test_an_output_that_is_full_is_named(root: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "refashion.cli", "mend", "--check"]
        done = subprocess.run(command, cwd=root, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    told = done.stderr.splitlines()[-1]
    assert told == "error: standard output: No space left on device; free some space"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed(closed: str, root: Path) -> None:
    """They change no exit code, and what was for one goes to no other."""
    command = f"exec {sys.executable} -m refashion.cli mend --check"
    open_streams, done = (
        subprocess.run(f"{command} {streams}", shell=True, cwd=root, capture_output=True, text=True)
        for streams in ("", closed)
    )
    assert done.returncode == open_streams.returncode < 2
    assert done.stdout == ("" if ">&-" in closed.split() else open_streams.stdout)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "options", [["--trials", "0"], ["--name", ""], ["--ray", ""]], ids=lambda o: o[0]
)
def test_an_option_of_a_sweep_counts_though_it_is_empty(options: list[str], root: Path) -> None:
    done = CliRunner().invoke(cli.main, ["sweep", "lr_and_decay", *options], obj=Workspace(root))
    assert done.exit_code == 2 and done.output.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("name", cli.main.commands)
def test_the_examples_of_a_command_are_commands(name: str) -> None:
    """Each parses, up to where it would be run."""
    text = CliRunner().invoke(cli.main, [name, "--help"]).stdout
    assert "Example" in text and max(map(len, text.splitlines())) <= 100
    examples = re.findall(r"(?m)^ +(?:Example: +)?refashion (.*)$", text)
    assert examples
    for example in examples:
        command, *arguments = example.split()
        assert command == name
        cli.main.commands[name].make_context(name, arguments)
