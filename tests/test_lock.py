"""The locks pin what pyproject.toml asks for, with hashes, and name no host."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-ray.lock")
LOCK = "".join((ROOT / name).read_text() for name in LOCKS)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
REQUIREMENTS = [
    *PROJECT["project"]["dependencies"],
    *chain(*PROJECT["project"]["optional-dependencies"].values()),
    *PROJECT["dependency-groups"]["dev"],
]
PINNED = re.findall(r"^(\S+)==(\S+)((?: ;[^\\\n]*)?) \\\n((?:    --hash=\S+.*\n)+)", LOCK, re.M)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_lock_meets_pyproject(name: str) -> None:
    requirement = Requirement(name)
    versions = [version for name, version, *_ in PINNED if name == requirement.name.lower()]
    assert versions
    assert all(version in requirement.specifier for version in versions)


def test_every_pin_has_hashes() -> None:
    assert len(PINNED) == len(re.findall(r"^[^\s#]", LOCK, re.M)) > 100


def test_lock_names_no_host() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*(-i|--\w*index|--find-links)", LOCK, re.M)


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_each_dependency_is_accounted_for(name: str) -> None:
    assert Requirement(name).name.lower() in (ROOT / "CONTRIBUTING.md").read_text().lower()
