"""A team's DVC remote over S3's protocol: what one clone pushed, another has without training."""

import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import free_port, running

pytestmark = pytest.mark.ci


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[str]:
    """Address of a server that speaks S3's protocol, with an empty bucket named refashion."""
    for package in ("dvc_s3", "moto"):
        pytest.importorskip(package, reason="not installed: make environment")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--port", str(port)]
    with running(command, f"{address}/moto-api/", tmp_path / "s3.log"):
        bucket = urllib.request.Request(f"{address}/refashion", method="PUT")
        urllib.request.urlopen(bucket, timeout=5).close()
        yield address


def test_a_second_clone_pulls_what_the_first_pushed(workspace, s3: str, tmp_path: Path) -> None:
    credentials = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"}
    environment = workspace.environment | credentials
    first = type(workspace)(tmp_path / "first", workspace.models, environment)
    second = type(workspace)(tmp_path / "second", workspace.models, environment)
    shutil.copytree(workspace.root, first.root, symlinks=True)
    first.run("git", "checkout", "--quiet", "--force", "main")
    first.run("dvc", "remote", "add", "--default", "team", "s3://refashion/dvc")
    first.run("dvc", "remote", "modify", "team", "endpointurl", s3)
    first.commit("Name the team's remote")
    assert "pushed" in first.run("dvc", "push")
    assert first.run("dvc", "push").strip() == "Everything is up to date."

    first.run("git", "clone", "--quiet", ".", str(second.root))
    second.run("dvc", "pull")
    assert second.run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert "Running stage" not in second.run("dvc", "repro")
    assert second.run("git", "status", "--short") == ""
    weights = Path("models/mlp/weights.safetensors")
    assert (second.root / weights).read_bytes() == (first.root / weights).read_bytes()
    second.run(sys.executable, "-m", "refashion.cli", "gate", "--quick")
