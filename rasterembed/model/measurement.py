"""Which of several networks is the fastest here: measured once for a model and a machine, then remembered."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rasterembed.store.write_aside import write_once

_T = TypeVar("_T", bound=str)

MARGIN = 1.1
"""Times as fast as the ones before it that a case must be: neighbours' noise then seldom decides."""

ROUNDS = 3


def fastest(cases: Mapping[_T, Callable[[], object]], kept: Path) -> _T:
    """The first case, or a later one that is faster by `MARGIN`.

    What was found once counts for good, so that a run that resumes another computes as that one did; it is measured
    anew only where `kept` cannot be written.

    Args:
        cases: what is timed, by name; each has run before.
        kept: file in which the choice is remembered.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, StopIteration):
        chosen = json.loads(kept.read_text())["chosen"]
        return next(name for name in cases if name == chosen)
    with suppress(OSError):  # one that cannot be read would stay, and the choice be made at every load
        kept.unlink()
    times: dict[_T, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            begun = time.perf_counter()
            case()
            times[name].append(time.perf_counter() - begun)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    first, *others = cases
    best = first
    for name in others:
        if medians[name] * MARGIN < medians[best]:
            best = name
    with suppress(OSError, ValueError, TypeError, KeyError, StopIteration):
        said = write_once(kept, json.dumps({"chosen": best, "seconds": medians}))
        return next(name for name in cases if name == json.loads(said)["chosen"])  # another process may have been first
    return best
