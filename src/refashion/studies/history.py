"""The history of an arm, and what it is known by."""

import hashlib
import json
from collections.abc import Sequence

Row = dict[str, float]
"""Measures of one epoch, by name."""


def digest(rows: Sequence[Row]) -> str:
    """SHA-256 (hexadecimal) of the rows of an arm, each with its epoch."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
