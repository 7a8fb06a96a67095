from pathlib import Path

import pytest

from refashion.base import paths
from refashion.evaluation import leftovers


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.setattr(paths, "EVALUATION", tmp_path / "evaluation")
    return tmp_path


def make_results(variant: str) -> None:
    for result in leftovers.RESULTS:
        result(variant).parent.mkdir(parents=True, exist_ok=True)
        result(variant).write_text("result")


def test_only_other_variants_go(checkout: Path) -> None:
    make_results("mlp")
    make_results("wide")
    assert leftovers.remove(["mlp"]) == [checkout / "evaluation/wide", checkout / "models/wide"]
    assert {f.name for f in checkout.glob("*/*")} == {"mlp"}
    assert all(result("mlp").exists() for result in leftovers.RESULTS)
    assert leftovers.remove(["mlp"]) == []


def test_files_of_others_stay(checkout: Path) -> None:
    make_results("wide")
    note = checkout / "models" / "wide" / "note.txt"
    note.write_text("mine")
    leftovers.remove([])
    assert [f for f in checkout.rglob("*") if f.is_file()] == [note]


def test_nothing_there_is_nothing_to_do() -> None:
    assert leftovers.remove(["mlp"]) == []
