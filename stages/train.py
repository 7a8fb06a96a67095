"""Train one variant: ``python stages train VARIANT``."""

from refashion.base import params, paths
from refashion.data import prepared
from refashion.training import loop, record
from refashion.training.settings import Settings


def main(variant: str) -> None:
    """Leave the variant's weights, history and record, and its timings in ``logs/``."""
    p = params.load()
    settings = Settings(**p.resolved(variant))
    train, validation = prepared.load(paths.TRAIN), prepared.load(paths.VALIDATION)
    training = loop.train(settings, train, validation, device=p.device, title=variant)
    record.save(
        training,
        variant=variant,
        settings=settings,
        inputs={"train": prepared.digest(train), "validation": prepared.digest(validation)},
        weights=paths.weights(variant),
        history=paths.history(variant),
        record=paths.record(variant),
        log=paths.training_log(variant),
    )
