"""Studies beside the classifiers: data, models, losses and settings through the same engines."""

DEFAULT = ("weight_decay", "house_prices", "initialisation")
"""Those that ``dvc repro`` runs."""

K_FOLD = "k_fold"
"""The one that has a pipeline of its own, in ``stages/k_fold``."""

NAMES = (*DEFAULT, K_FOLD)
"""Every study, as its stage, its module and its folder are named."""
