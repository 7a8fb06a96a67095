"""The record of a run: what determined it, and the digests of its results."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from refashion.base import files

LAYOUT = 2
"""Version of records and of the files beside them; raised whenever older code cannot read them."""

KINDS: dict[type, tuple[str, ...]] = {
    str: ("name", "experiment", "stage", "contract"),
    dict: ("data", "inputs", "params", "outputs"),
}
"""The kind that each of these fields of the file must have."""

DETERMINING = ("contract", "inputs", "name", "params")
"""Fields that determine a run's result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The content of ``record.json``: all that it takes to find, read and repeat a run."""

    name: str
    """The variant's, or ``STUDY/NAME``."""

    experiment: str
    """MLflow experiment that the run belongs to."""

    stage: str
    """Last stage that makes it, as DVC addresses it."""

    folders: tuple[str, ...]
    """Folders of its files, relative to the root of a checkout."""

    contract: str
    """What the bits may depend on: the same contract, params and inputs give the same bits."""

    data: Mapping[str, Any]
    """Settings of the data, among them ``dataset``."""

    inputs: Mapping[str, str]
    """SHA-256 (hexadecimal) of the sets of examples, by name."""

    params: Mapping[str, Any]
    """Settings of the training."""

    outputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 (hexadecimal) of the ``weights`` (`refashion.training.digest`), and of the files of
    the training by name; that of a file of weights is the weights' own."""

    parent: str | None = None
    """The run that sums this one up with others."""

    @property
    def run_key(self) -> str:
        """SHA-256 of the fields that determine the result, as sorted compact JSON."""
        return _sha256({key: getattr(self, key) for key in DETERMINING})

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the training and the data, by their names in ``params.yaml``."""
        return {**self.params, **{f"data.{name}": value for name, value in self.data.items()}}

    @property
    def files(self) -> list[str]:
        """Names of the files that the training left."""
        return [name for name in self.outputs if name != "weights"]

    @property
    def result(self) -> str:
        """SHA-256 of the outputs."""
        return _sha256(self.outputs)

    def as_dict(self) -> dict[str, Any]:
        """Content of the JSON file."""
        values = {**asdict(self), "layout": LAYOUT, "run_key": self.run_key}
        if self.parent is None:
            del values["parent"]
        return values


def read(content: bytes) -> Record | None:
    """The record in a file; None if its layout is another, `ValueError` if it is damaged."""
    values = json.loads(content)
    if not isinstance(values, dict):
        raise ValueError("it holds no object")
    return _parse(values) if values.get("layout") == LAYOUT else None


def differing(settings: Collection[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that are not the same for all."""
    first, *others = settings
    names = dict.fromkeys(chain.from_iterable(settings))
    return [name for name in names if any(o.get(name) != first.get(name) for o in others)]


def _parse(content: Mapping[str, Any]) -> Record:
    """Read what `Record.as_dict` gave; `ValueError` for other keys, or a key of another run."""
    values = {name: value for name, value in content.items() if name not in ("layout", "run_key")}
    try:
        record = Record(**{**values, "folders": tuple(values["folders"])})
        are_inside = [*map(files.is_inside, (record.name, *record.folders, *record.outputs))]
    except (KeyError, TypeError) as error:
        raise ValueError(f"missing or unknown keys: {error}") from None
    for kind, names in KINDS.items():
        for name in names:
            if not isinstance(getattr(record, name), kind):
                raise ValueError(f"its {name} is of another kind")
    if not isinstance(record.data.get("dataset"), str):
        raise ValueError("its data has no dataset")
    digests = (*record.inputs.values(), *record.outputs.values())
    if not all(isinstance(d, str) and re.fullmatch("[0-9a-f]{64}", d) for d in digests):
        raise ValueError("its inputs and outputs are no SHA-256s")
    if "weights" not in record.outputs:
        raise ValueError("its outputs have no weights")
    if not isinstance(record.parent, str | None):
        raise ValueError("its parent is of another kind")
    if not all(are_inside):
        raise ValueError("its name, its folders or its files are outside the checkout")
    if content.get("run_key") != record.run_key:
        raise ValueError("its run key is not the one of its settings and data")
    return record


def _sha256(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()
