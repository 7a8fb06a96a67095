"""Every path of the pipeline, once, anchored to the checkout that this file belongs to."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The checkout whose code is running."""

MAIN_ROOT = Path(os.environ.get("DVC_ROOT", ROOT))
"""The user's own checkout: differs from ROOT in the temporary folders of queued experiments."""

PARAMS = ROOT / "params.yaml"
RAW = ROOT / "data" / "raw"
PREPARED = ROOT / "data" / "prepared"
TRAIN = PREPARED / "train"
VALIDATION = PREPARED / "validation"
TEST = PREPARED / "test"
HOUSES = ROOT / "data" / "houses"
MODELS = ROOT / "models"
REPORTS = ROOT / "reports"
DATA_SUMMARY = REPORTS / "data.json"
EVALUATION = REPORTS / "evaluation"
STUDIES = REPORTS / "studies"
COMPARISON = REPORTS / "comparison.json"
ACCURACIES = REPORTS / "accuracies.csv"
FIGURES = REPORTS / "figures"
LOGS = ROOT / "logs"
NO_SOURCE = LOGS / "no-source.txt"


def weights(variant: str) -> Path:
    """Trained weights of a variant (safetensors)."""
    return MODELS / variant / "weights.safetensors"


def history(variant: str) -> Path:
    """Losses, accuracies and norms of a variant's training, one row an epoch (CSV)."""
    return MODELS / variant / "history.csv"


def record(variant: str) -> Path:
    """What determined a variant's training and what came of it (JSON)."""
    return MODELS / variant / "record.json"


def training_log(variant: str) -> Path:
    """Timings, device and versions of a variant's last training (JSON, volatile)."""
    return LOGS / f"{variant}.json"


def metrics(variant: str) -> Path:
    """Metrics of a variant on the test set (JSON)."""
    return EVALUATION / variant / "metrics.json"


def calibration(variant: str) -> Path:
    """Confidence against accuracy on the test set, one row a bin (CSV)."""
    return EVALUATION / variant / "calibration.csv"


def predictions(variant: str) -> Path:
    """True and predicted class with confidence, one row a test image (CSV)."""
    return EVALUATION / variant / "predictions.csv"


def study_record(study: str) -> Path:
    """What determined the arms of a study and what came of them (JSON)."""
    return STUDIES / study / "record.json"


def study_history(study: str) -> Path:
    """Losses and other measures of a study's trainings, one row an arm and epoch (CSV)."""
    return STUDIES / study / "history.csv"


def study_metrics(study: str) -> Path:
    """What a study found, by arm (JSON)."""
    return STUDIES / study / "metrics.json"


def gradients(study: str) -> Path:
    """Gradient norms where trainings start, one row an arm, depth and layer (CSV)."""
    return STUDIES / study / "gradients.csv"


def submission(study: str) -> Path:
    """Predicted prices in the form that Kaggle takes (CSV)."""
    return STUDIES / study / "submission.csv"
