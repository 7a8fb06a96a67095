"""What settings ask of a machine, estimated before anything is trained."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from refashion.base.errors import UserError
from refashion.base.machine import MEMORY
from refashion.base.params import Params
from refashion.base.params.sweeps import SweepParams

PIXELS, CLASSES = 784, 10
IMAGES = {"digits": 1500}
"""Training images of the data sets; all others have `OFFICIAL`."""
OFFICIAL = 60_000
HOUSES = 240
"""Training houses of the made-up table; the official one has more."""

OF_PARAMETER, OF_UNIT, OF_EPOCH = 16, 8, 500
"""Bytes that are taken at least: by a parameter with its gradient, by a unit for every example of
a batch, and by a row of the history."""

RATE = 1e10
"""Multiplications a second, as two processors do them."""

DAY = 24 * 3600
"""Seconds; a section that takes longer is worth a warning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Of trainings of a section of ``params.yaml``, each a lower bound."""

    section: str
    num_bytes: int
    products: int
    """Multiplications, one after the other."""


def estimate(params: Params) -> Iterator[Cost]:
    """Costs of all variants, studies and sweeps."""
    s, there = params.studies, IMAGES.get(params.data.dataset, OFFICIAL)
    images = int(min(params.data.limit or there, there) * (1 - params.data.validation))
    everyone = 0
    for name, variant in params.variants.items():
        widths = (PIXELS, *variant.hidden, CLASSES)
        cost = _cost(f"variants.{name}", widths, images, params.batch_size, params.epochs)
        everyone += cost.products
        yield cost
    yield Cost(section="studies.k_fold", num_bytes=0, products=(s.k_fold.folds - 1) * everyone)
    p, h, d = s.weight_decay, s.house_prices, s.initialisation
    of_examples = 4 * (p.train + p.test) * p.inputs
    yield _cost(
        "studies.weight_decay", (p.inputs, 1), p.train, p.batch_size, p.epochs, p.seeds, of_examples
    )
    for model in h.models.values():
        widths = (*model.hidden, 1)
        yield _cost("studies.house_prices", widths, HOUSES, h.batch_size, model.epochs, h.folds)
    for depth in range(1, d.depths + 1):
        widths = (PIXELS, *[d.width] * depth, CLASSES)
        yield _cost("studies.initialisation", widths, d.images, d.batch_size, d.epochs)
    for name, sweep in params.sweeps.items():
        yield _of_sweep(f"sweeps.{name}", sweep, params, images)


def _of_sweep(section: str, sweep: SweepParams, params: Params, images: int) -> Cost:
    """All trials, one after the other: in memory the largest, in time as long as the mean one."""
    choices = sweep.choices
    layers = choices.get("hidden", (params.variants[sweep.variant].hidden,))
    size = max(choices.get("batch_size", (params.batch_size,)))
    epochs = choices.get("epochs", (params.epochs,))
    costs = [
        _cost(section, (PIXELS, *hidden, CLASSES), images, size, max(epochs)) for hidden in layers
    ]
    trials = sweep.trials or sweep.num_choices
    # Successive halving trains most of them for few epochs.
    passes = 1 if sweep.search == "halving" else sum(epochs) // len(epochs)
    products = sum(cost.products for cost in costs) // len(costs) // max(epochs)
    num_bytes = max(cost.num_bytes for cost in costs)
    return Cost(section=section, num_bytes=num_bytes, products=trials * passes * products)


def refuse_impossible(params: Params) -> list[str]:
    """Warnings of sections that take days; `UserError` for those that no memory here can hold."""
    products: dict[str, int] = {}
    for cost in estimate(params):
        if cost.num_bytes > MEMORY:
            raise UserError(
                f"params.yaml: {cost.section}: needs {_bytes(cost.num_bytes)} of memory or more, "
                f"and this machine has {_bytes(MEMORY)}; use fewer or narrower layers, a smaller "
                "batch_size, fewer epochs or fewer seeds"
            )
        products[cost.section] = products.get(cost.section, 0) + cost.products
    return [
        f"warning: params.yaml: {section}: some {number:.0e} multiplications, "
        f"or {number / RATE / DAY:,.0f} days of two processors; Ctrl-C stops it"
        for section, number in products.items()
        if number > RATE * DAY
    ]


def _cost(
    section: str,
    widths: Sequence[int],
    examples: int,
    batch_size: int,
    epochs: int,
    models: int = 1,
    of_examples: int = 0,
) -> Cost:
    """Of models that are trained side by side, each with so many bytes of examples of its own."""
    parameters = sum((inputs + 1) * units for inputs, units in pairwise(widths))
    of_batch = OF_UNIT * min(batch_size, examples) * sum(widths[1:])
    num_bytes = OF_PARAMETER * parameters + of_batch + OF_EPOCH * epochs + of_examples
    # Forward, then backward to the weights and to the inputs.
    products = 3 * parameters * examples * epochs
    return Cost(section=section, num_bytes=models * num_bytes, products=models * products)


def _bytes(number: float) -> str:
    """A number of bytes, for people."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}"
        number /= 1000
    return f"{number:,.0f} TB"
