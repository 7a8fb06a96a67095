"""Writing a run: weights, history, tables, metrics and record, and a volatile log."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safetensors.torch import save

from refashion.base import files
from refashion.base.workspace import Workspace
from refashion.runs.record import Record
from refashion.runs.run import WEIGHTS
from refashion.training.initial import Weights

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Header and rows."""


def write(
    workspace: Workspace,
    record: Record,
    history: Sequence[Mapping[str, Any]],
    *,
    digest: str,
    weights: Weights | None = None,
    tables: Mapping[str, Table] | None = None,
    metrics: Mapping[str, float] | None = None,
    timings: Mapping[str, Any],
) -> Record:
    """Write a run to the first folder of its record, and give the record with its outputs.

    Parameters
    ----------
    history
        One row an epoch, without its number; measures that are missing, None or NaN leave empty
        cells.
    digest
        SHA-256 of the weights (`refashion.training.digest`), which need not be kept.
    tables
        Further results, by the name of the CSV file.
    metrics
        What was measured at the end, unless a later stage measures it.
    timings
        For the log, which alone holds anything volatile.
    """
    folder = workspace.root / record.folders[0]
    outputs = {"weights": digest}
    if weights is not None:
        outputs[WEIGHTS] = digest
        with files.replacing(folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(weights))
    columns = list(dict.fromkeys(name for row in history for name in row))
    rows = [[epoch, *(_cell(row.get(c)) for c in columns)] for epoch, row in enumerate(history, 1)]
    all_tables: dict[str, Table] = {"history.csv": (["epoch", *columns], rows), **(tables or {})}
    for name, table in all_tables.items():
        files.write_csv(folder / name, *table)
        outputs[name] = files.sha256(folder / name)
    if metrics is not None:
        files.write_json(folder / "metrics.json", dict(metrics))
    done = replace(record, outputs=outputs)
    files.write_json(folder / "record.json", done.as_dict())
    log = {**timings, "run_key": done.run_key, "weights": digest}
    files.write_json(workspace.log_file(record.name), log)
    return done


def _cell(value: Any) -> Any:
    """A value as CSV has it; empty where there is none."""
    return "" if value is None or value != value else value
