"""Training runs that anybody can run again and get the same bits.

From Python, in a checkout where the pipeline has run:

>>> import refashion
>>> model = refashion.load("mlp")
>>> model.predict(images)           # names of classes; images: uint8 [n, 28, 28]
>>> model.probabilities(images)     # float64 [n, 10]
>>> refashion.results("mlp").history    # a DataFrame, one row an epoch
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refashion.api import Results, load, results
    from refashion.serving.predict import Model

__all__ = ["Model", "Results", "load", "results"]


def __getattr__(name: str) -> Any:
    """Import the rest when it is asked for: a training has torch and numpy alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from refashion import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
