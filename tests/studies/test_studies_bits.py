"""The bits of whole studies at their smallest: the same whatever the processor can do."""

import hashlib
import json
import runpy
import tempfile
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

from refashion.data import sources
from refashion.studies import house_prices, initialisation, k_fold, weight_decay

TINY = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("tiny.py"))))


def digest() -> str:
    """SHA-256 of all that the studies leave for DVC to hash."""
    sha = hashlib.sha256()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sources.fetch_houses("made_up", root / "houses")
        houses, submission = house_prices.run(TINY.HOUSES, root / "houses", 0, "portable", "cpu")
        starts, gradients = initialisation.run(TINY.STARTS, TINY.images(), 0, "portable", "cpu")
        parts = [TINY.images(40), TINY.images(20)]
        for study, arms in {
            "weight_decay": weight_decay.run(TINY.DECAY, 0, "portable", "cpu"),
            "house_prices": houses,
            "initialisation": starts,
            "k_fold": k_fold.run(2, TINY.VARIANTS, parts, 0, "cpu"),
        }.items():
            TINY.save(root, study, arms)
        submission.write(root / "reports" / "submission.csv")
        for file in sorted((root / "reports").rglob("*.*")):
            sha.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    sha.update(json.dumps([asdict(gradient) for gradient in gradients]).encode())
    return sha.hexdigest()


def test_bits_are_the_same_again() -> None:
    assert digest() == digest()
