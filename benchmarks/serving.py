"""How a contender works: in a process of its own, one epoch whenever it is asked for one."""

import json
import sys
import time
from collections.abc import Callable, Mapping

Epoch = Callable[[], object]
"""Trains one epoch more."""


def serve(about: Mapping[str, object], contender: Callable[[str], Epoch]) -> None:
    """Answer every line on stdin, the name of a variant, with the seconds of one epoch.

    Parameters
    ----------
    about
        Versions and settings; the first line on stdout.
    contender
        Makes a variant ready to train, once; that takes no part in the times.
    """
    print(json.dumps(about), flush=True)
    ready: dict[str, Epoch] = {}
    try:
        for line in sys.stdin:
            variant = line.strip()
            if variant not in ready:
                ready[variant] = contender(variant)
            tick = time.perf_counter()
            ready[variant]()
            print(time.perf_counter() - tick, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
