"""Study weight decay: python stages weight_decay."""

from refashion.base import params
from refashion.base.params.studies import WeightDecayParams
from refashion.studies import arm, weight_decay


def main() -> None:
    """Leave the study's record, history and metrics."""
    p = params.load()
    arms = weight_decay.run(p.study(WeightDecayParams), p.seed, p.numerics, p.device)
    arm.save(weight_decay.NAME, arms)
