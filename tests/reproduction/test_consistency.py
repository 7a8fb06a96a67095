"""What is committed fits together: whatever is altered in it is found, and named with its cure."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from refashion.base import files
from refashion.base.errors import UserError
from refashion.reproduction import consistency


def faults(repository: Any) -> list[tuple[str, str]]:
    """File and fault of every check that does not hold."""
    checks = [check for check in consistency.check(repository.workspace) if not check.holds]
    return [(check.name.removeprefix("consistent: "), check.detail) for check in checks]


def alter_params(repository: Any) -> None:
    repository.change(variants={"softmax": {"hidden": [], "lr": 0.1}, "mlp": {"lr": 0.3}})


def alter_code(repository: Any) -> None:
    code = repository.workspace.root / "stages" / "make.py"
    code.write_text(f"{code.read_text()}# changed\n")


def remove(repository: Any) -> None:
    (repository.workspace.models / "mlp" / "history.csv").unlink()


def add(repository: Any) -> None:
    files.write_text(repository.workspace.models / "wide" / "history.csv", "epoch\n")
    repository.git("add", "--all")


def drop_stage(repository: Any) -> None:
    repository.change(variants={"mlp": {"hidden": [32], "lr": 0.2}})


def forge(repository: Any) -> None:
    """Write another history, and its digest to the lock."""
    folder = repository.workspace.models / "mlp"
    history = folder / "history.csv"
    history.write_text(history.read_text().replace("epoch,train_loss\n1,", "epoch,train_loss\n1,1"))
    repository.dvc("commit", "--force")


def forge_weights(repository: Any) -> None:
    """Let the history end in other weights than the record has, and both agree with the lock."""
    folder = repository.workspace.models / "mlp"
    files.write_csv(folder / "history.csv", ["epoch", "weights_sha256"], [[1, "0" * 64]])
    record = json.loads((folder / "record.json").read_text())
    record["outputs"]["history.csv"] = files.sha256(folder / "history.csv")
    files.write_json(folder / "record.json", record)
    repository.dvc("commit", "--force")


def forge_settings(repository: Any) -> None:
    """Let the lock and params.yaml agree on a learning rate that the record does not have."""
    alter_params(repository)
    repository.dvc("commit", "--force")


RECORD = "models/mlp/record.json"
ANEW = "`dvc repro --force dvc.yaml:evaluate@mlp` makes it anew"


@pytest.mark.parametrize(
    ("alter", "file", "fault", "cure"),
    [
        (
            alter_params,
            "dvc.lock",
            "evaluate@mlp: its params are not those",
            "run `dvc repro dvc.yaml`",
        ),
        (
            alter_code,
            "stages/make.py",
            "is not what dvc.yaml:evaluate@softmax and 2 more used",
            "`dvc repro dvc",
        ),
        (
            remove,
            "models/mlp/history.csv",
            "is not what dvc.yaml:evaluate@mlp left",
            "`git checkout HEAD -- ",
        ),
        (add, "models/wide/history.csv", "is no output of any stage", "`git rm "),
        (drop_stage, "dvc.lock", "has the stage evaluate@softmax, dvc.yaml has not", "delete it"),
        (forge, RECORD, "history.csv beside it is not the one that it tells of", ANEW),
        (forge_weights, RECORD, "its weights are not those of the last epoch", ANEW),
        (forge_settings, RECORD, "its lr is 0.2, that of params.yaml is 0.3", ANEW),
    ],
)
def test_a_fault_is_named_with_its_cure(
    repository: Any, alter: Callable[[Any], None], file: str, fault: str, cure: str
) -> None:
    alter(repository)
    told = faults(repository)
    assert any(f == file and text.startswith(fault) and cure in text for f, text in told), told


def test_the_command(repository: Any) -> None:
    done = repository.refashion("gate", "--quick")
    assert done.exit_code == 0 and done.stdout.startswith("## Gate: holds\n"), done.output
    alter_code(repository)
    done = repository.refashion("gate", "--quick", "--json")
    (check,) = json.loads(done.stdout)
    assert (done.exit_code, check["holds"]) == (1, False)
    assert "FAILS  consistent: stages/make.py: " in done.stderr
    for name, text in (("dvc.lock", "stages: {track: {cmd: 1}}"), ("dvc.yaml", "stages: {")):
        (repository.workspace.root / name).write_text(text)
        assert name in repository.refused("gate", "--quick")


def test_names_of_files_may_be_no_text(repository: Any) -> None:
    for name in (b"caf\xe9.txt", b"models/caf\xe9.txt"):
        (repository.workspace.root / os.fsdecode(name)).touch()
    repository.git("add", "--all")
    checks = list(consistency.check(repository.workspace))
    assert any(check.name == f"consistent: {os.fsdecode(name)}" for check in checks)
    assert b"models/caf\\udce9.txt" in consistency.summary(checks).encode()


@settings(max_examples=50)
@given(data=st.data())
def test_any_bit_of_a_result_or_a_lock(original: Any, data: st.DataObject) -> None:
    """But for counts, and the digest of a folder with folders that only DVC's cache has."""
    root = original.workspace.root
    name = data.draw(
        st.sampled_from(original.git("ls-files", "models", "reports", "dvc.lock").split())
    )
    content = (root / name).read_bytes()
    altered = bytearray(content)
    at = data.draw(st.integers(0, len(content) - 1))
    if name == "dvc.lock":
        line = content.count(b"\n", 0, at)
        lines = content.splitlines()
        unknown = lines.index(b"    - path: reports") + 2
        assume(line != unknown and lines[line].split(b":")[0].strip() not in (b"size", b"nfiles"))
    altered[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        (root / name).write_bytes(altered)
        assert faults(original), altered[max(0, at - 40) : at + 40]
    except UserError:
        pass  # it cannot be read at all
    finally:
        (root / name).write_bytes(content)
