"""What every test shares: a clean environment and examples that are the same every time."""

import os
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("refashion", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("refashion")


def pytest_configure() -> None:
    """Keep the caller's experiment and tracking server out of the tests, before any import."""
    for name in list(os.environ):
        if name.startswith(("DVC_", "MLFLOW_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the checkout under test."""
    return Path(__file__).resolve().parents[1]
