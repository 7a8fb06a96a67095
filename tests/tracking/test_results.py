"""Reading what the pipeline has left, wherever the checkout is."""

import json
from pathlib import Path

import pytest

from refashion.base import files, paths
from refashion.base.errors import UserError
from refashion.tracking.results import Results


def test_history_leaves_out_an_empty_validation_set(tmp_path: Path) -> None:
    file = tmp_path / paths.history("mlp").relative_to(paths.ROOT)
    header = ["epoch", "train_loss", "validation_loss", "weights_sha256"]
    files.write_csv(file, header, [[1, 0.5, "", "a"], [2, float("nan"), "", "b"]])
    history = Results(root=tmp_path, variant="mlp").history
    assert list(history) == ["epoch", "train_loss"]
    assert history["epoch"] == [1.0, 2.0]


def test_log_of_another_training_is_none(checkout: Path) -> None:
    log = Results(root=checkout, variant="mlp").log
    assert log and log["device_name"] == "A Processor"
    file = checkout / "logs" / "mlp.json"
    file.write_text(json.dumps({**log, "weights": "0" * 64}))
    assert Results(root=checkout, variant="mlp").log is None
    file.unlink()
    assert Results(root=checkout, variant="mlp").log is None


def test_missing_result_is_named(checkout: Path) -> None:
    (checkout / "models" / "mlp" / "record.json").unlink()
    with pytest.raises(UserError, match=r"^models/mlp/record\.json: missing; run `dvc repro`"):
        _ = Results(root=checkout, variant="mlp").record


def test_digests_follow_the_files(checkout: Path) -> None:
    before = Results(root=checkout, variant="mlp")
    digests = before.outputs_digest, before.evaluation_digest
    metrics = checkout / "reports" / "evaluation" / "mlp" / "metrics.json"
    metrics.write_text(metrics.read_text() + " ")
    after = Results(root=checkout, variant="mlp")
    assert after.outputs_digest == digests[0]
    assert after.evaluation_digest != digests[1]
