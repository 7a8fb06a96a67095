"""The README tells the truth, in both languages: commands, links, files, numbers."""

import json
import re
import shlex
from pathlib import Path

import pytest

from refashion.base.workspace import Workspace
from refashion.cli import main
from refashion.runs import listing


@pytest.fixture(scope="module", params=["README.md", "README.zh-CN.md"])
def readme(root: Path, request: pytest.FixtureRequest) -> str:
    return (root / request.param).read_text()


def commands(readme: str) -> list[list[str]]:
    """Words of every command in the README, without comments and variables before it."""
    lines = re.findall(r"^ {4}((?:make|dvc|python|source|refashion) .*)$", readme, re.MULTILINE)
    lines += re.findall(r"`((?:[A-Z_]+=\S+ )?(?:make|dvc|python|source|refashion) [^`]+)`", readme)
    return [shlex.split(re.sub(r"^[A-Z_]+=\S+ ", "", line), comments=True) for line in lines]


def test_links_lead_somewhere(readme: str, root: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", readme)
    sections = re.findall(r"^##+ (.+)$", readme, re.MULTILINE)
    anchors = {f"#{section.lower().replace(' ', '-')}" for section in sections}
    assert links
    for link in links:
        assert link.startswith("https://d2l.ai") or link in anchors or (root / link).exists(), link


def test_both_languages_have_the_same_commands(root: Path) -> None:
    english, chinese = ((root / f"README{x}.md").read_text() for x in ("", ".zh-CN"))
    assert sorted(commands(english)) == sorted(commands(chinese))
    pictures = r"\(benchmarks/results/[^)]+\)"
    assert re.findall(pictures, english) == re.findall(pictures, chinese)
    sections = r"^##+ "
    assert len(re.findall(sections, english, re.M)) == len(re.findall(sections, chinese, re.M))


def test_named_files_exist(readme: str, root: Path) -> None:
    made_by_the_pipeline = ("data/", "models/", "reports/")
    names = re.findall(r"^ {4}(\S+/|\S+\.(?:yaml|lock)) +\S", readme, re.MULTILINE)
    assert len(names) > 8
    for name in names:
        assert name in made_by_the_pipeline or (root / name).exists(), name


def test_commands_are_exercised(readme: str, root: Path) -> None:
    """Make targets exist; settings and subcommands of DVC stand, word for word, in the tests."""
    makefile = (root / "Makefile").read_text()
    tests = (root / "tests/pipeline/test_experiments.py").read_text()
    tests += (root / "tests/pipeline/test_contract.py").read_text()
    tests += (root / "tests/pipeline/test_remote.py").read_text()
    tests += (root / "tests/tracking/test_store.py").read_text()
    found = commands(readme)
    assert len(found) > 12
    for tool, *words in found:
        if tool == "make" and words:
            assert re.search(rf"^{words[0]}:", makefile, re.MULTILINE), words
        elif tool == "refashion":
            assert words[0] in main.commands or words[0] == "--help", words
            known = {o for p in main.commands.get(words[0], main).params for o in p.opts}
            assert {w for w in words if w.startswith("--")} <= known | {"--help"}, words
        elif tool == "dvc":
            missing = [w for w in words if w not in tests and w not in ("FOLDER", "URL")]
            assert not missing, f"no test runs dvc {' '.join(words)}: {missing}"


SHOWN = {
    "weight_decay/decay_0": {"train_loss": ".1e", "test_loss": ".2f", "l2": ".3f"},
    "weight_decay/decay_3": {"train_loss": ".1e", "test_loss": ".2f", "l2": ".3f"},
    "house_prices/linear": {"validation_log_rmse": ".3f", "train_log_rmse": ".3f"},
    "house_prices/linear_sgd": {"validation_log_rmse": ".3f", "train_log_rmse": ".3f"},
    "house_prices/mlp": {"validation_log_rmse": ".3f", "train_log_rmse": ".3f"},
    "k_fold/softmax": {"validation_accuracy": ".4f"},
    "k_fold/mlp": {"validation_accuracy": ".4f"},
    "k_fold/dropout": {"validation_accuracy": ".4f"},
}


@pytest.mark.parametrize("run", SHOWN)
def test_studies_show_what_came_out(readme: str, run: str) -> None:
    metrics = listing.find(Workspace.here(), run).metrics
    for name, form in SHOWN[run].items():
        assert f"{metrics[name]:{form}} ± {metrics[f'{name}_std']:{form}}" in readme


def test_the_sweep_shows_what_came_out(readme: str) -> None:
    metrics = listing.find(Workspace.here(), "lr_and_decay/mlp").metrics
    assert f"lr_and_decay/mlp.trial_{metrics['best_trial']} " in readme
    for name in ("validation_accuracy", "test_accuracy"):
        assert f"{metrics[name]:.4f}" in readme


def test_table_shows_what_was_measured(readme: str, root: Path) -> None:
    measured = json.loads((root / "benchmarks/results/accuracy.json").read_text())
    committed = json.loads((root / "reports/metrics.json").read_text())["accuracy"]
    for variant, row in measured["variants"].items():
        portable = row["portable"]
        cell = f"{portable['mean']:.4f} ± {portable['standard_deviation']:.4f}"
        assert f"| {variant} | {committed[variant]:.4f} | {cell} |" in readme


def test_hashes_are_those_that_were_measured(readme: str, root: Path) -> None:
    measured = json.loads((root / "benchmarks/results/machines.json").read_text())
    shown = re.findall(r"\| `(\w{8})` \| `(\w{8})` \| `(\w{8})` \|", readme)
    portable, *native = map(set, zip(*shown, strict=True))
    assert {row["portable"][:8] for row in measured} == portable
    for processor, hashes in zip(("AMD", "Intel"), native, strict=True):
        own = [row for row in measured if row["processor"].startswith(processor)]
        assert {row["native"][:8] for row in own} == hashes
    assert re.search(rf"\b{len(measured)} (processes|个进程)", readme)


def test_faults_are_those_that_were_injected(readme: str, root: Path) -> None:
    measured = json.loads((root / "benchmarks/results/faults.json").read_text())
    trials = sum(row["trials"] for row in measured)
    assert f"{trials} trials in " in readme or f"{trials} 次试验" in readme
    shown = re.findall(r"^\| .* \| (\d+) \| (\d+) \|$", readme, re.M)
    assert sum(int(number) for number, _ in shown) == trials
    wrong = ("lost", "doubled", "half_written", "stuck", "stale", "untold")
    assert sum(int(number) for _, number in shown) == sum(r[k] for r in measured for k in wrong)


def test_scale_is_what_was_measured(readme: str, root: Path) -> None:
    measured = json.loads((root / "benchmarks/results/scale.json").read_text())
    rates = [f"{row['trials_per_minute']:.1f}" for row in measured["sweeps"]]
    assert sorted(re.findall(r"^\| .* \| (\d+\.\d) \|$", readme, re.M)) == sorted(rates)
    most = max(row["models"] for row in measured["stacks"])
    (shown,) = re.findall(rf"^{most} (?:learning rates|个学习率).*$", readme, re.M)
    ratios = [f"{row['ratio']:.1f}" for row in measured["stacks"] if row["models"] == most]
    assert sorted(re.findall(r"\d+\.\d", shown)) == sorted(ratios)
    for row in measured["images"]:
        if row["images"] == 6_000_000:
            assert re.search(rf"{row['us_per_image_ratio']:.2f}\b", readme)
