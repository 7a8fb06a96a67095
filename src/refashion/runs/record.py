"""What determined a run, and what came of it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

LAYOUT = 2
"""Of records and of the files beside them; raised whenever older code cannot read them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The content of ``record.json``: everything that it takes to find, read and repeat a run."""

    name: str
    """The variant's, or ``STUDY/NAME``."""

    experiment: str
    """MLflow experiment that the run belongs to."""

    stage: str
    """Last stage that makes it, as DVC addresses it."""

    folders: tuple[str, ...]
    """That hold its files, from the root of a checkout."""

    contract: str
    """What the bits may depend on: the same contract, params and inputs give the same bits."""

    data: Mapping[str, Any]
    """Settings of the data; ``dataset`` is among them."""

    inputs: Mapping[str, str]
    """SHA-256 (hexadecimal) of every set of examples, by name."""

    params: Mapping[str, Any]
    """Settings of the training."""

    outputs: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 (hexadecimal) of the ``weights`` (`refashion.training.digest`), and of the files
    that the training left, by name."""

    parent: str | None = None
    """The run that sums this one up with others."""

    @property
    def run_key(self) -> str:
        """SHA-256 of what determined the result, as sorted compact JSON."""
        return _sha256(
            {
                "contract": self.contract,
                "inputs": self.inputs,
                "name": self.name,
                "params": self.params,
            }
        )

    @property
    def result(self) -> str:
        """SHA-256 of what the training came to."""
        return _sha256(self.outputs)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        values = {**asdict(self), "folders": list(self.folders)}
        if self.parent is None:
            del values["parent"]
        return {**values, "layout": LAYOUT, "run_key": self.run_key}


def parse(content: Mapping[str, Any]) -> Record | None:
    """Read what `Record.as_dict` gave.

    Returns
    -------
    Record or None
        None for a record of another layout.

    Raises
    ------
    ValueError
        If it is none, or its run key is not the one of its content.
    """
    if content.get("layout") != LAYOUT:
        return None
    names = {f.name for f in fields(Record)}
    if not set(content) - {"layout", "run_key"} <= names:
        raise ValueError("unknown keys")
    try:
        values = {name: content[name] for name in content if name in names}
        record = Record(**{**values, "folders": tuple(content["folders"])})
    except (KeyError, TypeError) as error:
        raise ValueError(f"missing keys ({error})") from None
    if content.get("run_key") != record.run_key:
        raise ValueError("its run key is not the one of its settings and data")
    return record


def _sha256(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=dict)
    return hashlib.sha256(text.encode()).hexdigest()
