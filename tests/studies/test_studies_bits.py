"""The bits of whole studies and of means and spreads: the same whatever the processor can do."""

import hashlib
import importlib
import json
import math
import tempfile
from fractions import Fraction
from pathlib import Path
from random import Random
from statistics import fmean

import tiny
from refashion.base.params.studies import StudiesParams
from refashion.studies import study

GOLDEN = "7d6835189d693190382b6c7f0782d96802b9dd2895cef34d00d875a7d6f81d26"


def digest() -> str:
    """SHA-256 of all that the studies leave for DVC to hash, and of many means and spreads."""
    sha = hashlib.sha256(digest_of_means().encode())
    with tempfile.TemporaryDirectory() as name:
        workspace = tiny.write_data(Path(name))
        for study_name in StudiesParams.model_fields:
            module = importlib.import_module(f"refashion.studies.{study_name}")
            metrics = module.run(workspace, tiny.params())
            study.finish(workspace, study_name, metrics)
            sha.update(json.dumps(metrics).encode())
            workspace.study_metrics(study_name).unlink()
        for file in sorted(f for f in workspace.reports.rglob("*.*") if f.is_file()):
            sha.update(workspace.relative(file).encode() + file.read_bytes())
    return sha.hexdigest()


def digest_of_means() -> str:
    """SHA-256 of means and spreads of numbers of all sizes."""
    results: list[object] = []
    for n in range(2, 2000):
        numbers = numbers_of(n)
        trained = tiny.observed(*([{"x": x, "y": -x * x}, {"x": x / 3, "y": x}] for x in numbers))
        results += [fmean(numbers), study.last_measures(trained), study.mean_history(trained)]
    return hashlib.sha256(json.dumps(results).encode()).hexdigest()


def numbers_of(n: int) -> list[float]:
    """Numbers that are close together, or orders of magnitude apart."""
    numbers = Random(n)
    spread = 2.0 ** -(n % 60)
    return [1 + spread * numbers.random() for _ in range(2 + n % 20)]


def test_bits_of_means_are_the_known_ones() -> None:
    assert digest_of_means() == GOLDEN


def test_deviations_are_rounded_once() -> None:
    """The nearest float to the root of the exact variance: half way to either neighbour holds it.

    Whatever the version of the standard library.
    """
    for n in range(2, 500):
        numbers = numbers_of(n)
        exact = [Fraction(x) for x in numbers]
        mean = sum(exact) / len(exact)
        variance = sum((x - mean) * (x - mean) for x in exact) / (len(exact) - 1)
        std = study.last_measures(tiny.observed(*([{"x": x}] for x in numbers)))["x_std"]
        below, above = (
            (Fraction(std) + Fraction(math.nextafter(std, to))) / 2 for to in (0, math.inf)
        )
        assert below * below <= variance <= above * above
