"""Validate every variant on folds: python stages k_fold."""

from refashion.base import params, paths
from refashion.base.params.studies import KFoldParams
from refashion.data import prepared
from refashion.studies import arm, k_fold
from refashion.training.settings import Settings


def main() -> None:
    """Leave the study's record, history and metrics."""
    p = params.load()
    variants = {name: Settings(**p.resolved(name)) for name in p.variants}
    parts = [prepared.load(paths.TRAIN), prepared.load(paths.VALIDATION)]
    arms = k_fold.run(p.study(KFoldParams).folds, variants, parts, p.data.seed, p.device)
    arm.save(k_fold.NAME, arms)
    for found in arms:
        if found.parent is None:
            mean, deviation = (found.metrics[f"validation_accuracy{x}"] for x in ("", "_deviation"))
            print(f"{found.name}: validation accuracy {mean:.4f} +- {deviation:.4f}")
