"""Predict house prices: python stages house_prices."""

from refashion.base import params, paths
from refashion.base.params.studies import HousePricesParams
from refashion.studies import arm, house_prices


def main() -> None:
    """Leave the study's record, history and metrics, and the prices that are asked for."""
    p = params.load()
    settings = p.study(HousePricesParams)
    arms, submission = house_prices.run(settings, paths.HOUSES, p.seed, p.numerics, p.device)
    submission.write(paths.submission(house_prices.NAME))
    arm.save(house_prices.NAME, arms)
    print(f"{submission.model} predicts the submission")
