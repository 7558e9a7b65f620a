"""Measure which of several networks is the fastest, once for each model and machine, and remember the answer."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from rasterembed.store.write_aside import write_once

_Name = TypeVar("_Name", bound=str)

MARGIN = 1.1
"""Speed that a later case must exceed, as a multiple of the best case so far. Noise then seldom decides."""

ROUNDS = 3
"""Number of times each case is timed; the medians are compared."""


def pick_fastest(cases: Mapping[_Name, Callable[[], object]], answer_file: Path) -> _Name:
    """Return the name of the first case, or of a later one that is faster by `MARGIN`.

    The first answer counts for good, because a run that resumes another should compute as that one did. Cases are
    measured again only where `answer_file` cannot be written or read.

    Args:
        cases: Functions to time, by name. Each has run before, so no time includes a warm-up.
        answer_file: JSON file that remembers the answer.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        return _answer(answer_file.read_text(), cases)
    with suppress(OSError):  # A broken file would stay, and every load would measure again.
        answer_file.unlink()
    seconds = _median_seconds(cases)
    best, *others = cases
    for name in others:
        if seconds[name] * MARGIN < seconds[best]:
            best = name
    with suppress(OSError, ValueError, TypeError, KeyError):
        # Another process may have written its answer in the meantime: then that one counts.
        return _answer(write_once(answer_file, json.dumps({"chosen": best, "seconds": seconds})), cases)
    return best


def _answer(text: str, names: Iterable[_Name]) -> _Name:
    """Return the remembered name.

    Raises:
        ValueError, TypeError, KeyError: If the text is broken or names no case.
    """
    return {name: name for name in names}[json.loads(text)["chosen"]]


def _median_seconds(cases: Mapping[_Name, Callable[[], object]]) -> dict[_Name, float]:
    """Time the cases in turns, so that a busy moment of the machine does not hit one case alone."""
    seconds: dict[_Name, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
