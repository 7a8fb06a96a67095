"""Trials of a sweep: trained in stacks, each once, and kept until the sweep is done."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from refashion.base import files
from refashion.base.progress import Advance
from refashion.data.prepared import Split
from refashion.studies import study
from refashion.studies.study import Trained
from refashion.training import initial
from refashion.training.loop import Model, Row, Training
from refashion.training.settings import Settings

LARGEST_STACK = 16
"""Trials that are trained side by side; more gain nothing on a processor."""

MOST_NUMBERS = 2**26
"""Parameters and activations of a batch of all models of a stack together: a quarter of a gigabyte
for each copy of them."""

KEPT = ("contract", "seconds", "num_examples", "machine")
"""Fields of `Trained` that JSON can hold."""

Result = dict[str, Any]
"""What is kept of a trial: those fields and the history, without the weights."""

Splits = Mapping[str, Split]
"""The ``train`` and ``validation`` images of every trial."""


def train(stack: Sequence[Settings], splits: Splits, device: str, advance: Advance) -> list[Result]:
    """Train the trials of a stack side by side; their results can travel to another process."""
    examples = study.examples(splits)
    models = [Model(settings=settings, **examples) for settings in stack]
    trained = study.train("", models, device, may_diverge=True, advance=advance)
    return [
        {name: getattr(t, name) for name in KEPT}
        | {"history": [asdict(row) for row in t.training.history]}
        for t in trained
    ]


def restore(settings: Settings, result: Result) -> Trained:
    """A trial from what was kept of it; its weights are not."""
    rows = [Row(**{**row, "model": 0}) for row in result["history"]]
    # If it diverged in the first epoch, its digest is that of its start.
    weights = {} if rows else initial.of(settings)
    return Trained(
        training=Training(settings=settings, weights=weights, history=rows),
        rows=[study.measures(row, {}) for row in rows],
        **{name: result[name] for name in KEPT},
    )


class Done:
    """Results of the trials that were made already, in a folder.

    A trial is found by its variant, settings, images and code: so no sweep makes it twice.
    """

    def __init__(self, folder: Path, variant: str, device: str, inputs: Mapping[str, str]) -> None:
        """`inputs` are the digests of the images."""
        self.folder = folder
        self.key = partial(study.key, variant, device=device, inputs=inputs)

    def get(self, settings: Settings) -> Trained | None:
        """A trial; None if it was not made here, or its file is damaged or another's."""
        key = self.key(settings)
        try:
            content = files.read_sealed(self.folder / f"{key}.trial", key)
        except OSError:
            return None
        return None if content is None else restore(settings, json.loads(content))

    def put(self, settings: Settings, result: Result) -> None:
        """Keep the result of a trial."""
        key = self.key(settings)
        files.write_sealed(self.folder / f"{key}.trial", key, json.dumps(result).encode())


def stacks(trials: Sequence[Settings], processes: int) -> list[list[Settings]]:
    """Divide trials among stacks: as many for each process, those of one seed together."""
    alike = defaultdict(list)
    for settings in sorted(trials, key=lambda settings: settings.seed):
        alike[settings.widths, settings.batch_size, settings.epochs].append(settings)
    size = min(LARGEST_STACK, -(-len(trials) // processes))
    divided = []
    for (widths, batch_size, _), group in alike.items():
        numbers = sum((inputs + 1 + batch_size) * units for inputs, units in pairwise(widths))
        most = max(1, min(size, MOST_NUMBERS // numbers))
        divided += [group[first : first + most] for first in range(0, len(group), most)]
    return divided
