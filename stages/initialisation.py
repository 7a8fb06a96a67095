"""Study where weights start: python stages initialisation."""

from dataclasses import astuple

from refashion.base import files, params, paths
from refashion.base.params.studies import InitialisationParams
from refashion.data import prepared
from refashion.studies import arm, initialisation


def main() -> None:
    """Leave the study's record, history and metrics, and the norms of the gradients."""
    p = params.load()
    train = prepared.load(paths.TRAIN)
    settings = p.study(InitialisationParams)
    arms, gradients = initialisation.run(settings, train, p.seed, p.numerics, p.device)
    header = ["arm", "depth", "layer", "norm"]
    files.write_csv(paths.gradients(initialisation.NAME), header, map(astuple, gradients))
    arm.save(initialisation.NAME, arms)
