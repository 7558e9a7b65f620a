"""Measure which of several networks is the fastest, and save the answer. Each model is measured once on a machine."""

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
"""Factor by which a later case must be faster than the best case so far. With this margin, the choice seldom depends
on random differences between timings."""

ROUNDS = 3
"""Number of times that each case is timed. The medians are compared."""


def pick_fastest(cases: Mapping[_Name, Callable[[], object]], answer_file: Path) -> _Name:
    """Return the name of the first case, or of a later case that is faster by the factor `MARGIN`.

    The first answer is final, because a resumed run should use the same engine as the first run. The cases are measured
    again only if `answer_file` cannot be written or read.

    Args:
        cases: Functions to time, by name. The caller has run each function before, so no time includes a warm-up.
        answer_file: JSON file that keeps the answer.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        return _answer(answer_file.read_text(), cases)
    with suppress(OSError):  # `write_once` would keep a broken file, and every load would measure again.
        answer_file.unlink()
    seconds = _median_seconds(cases)
    best, *others = cases
    for name in others:
        if seconds[name] * MARGIN < seconds[best]:
            best = name
    with suppress(OSError, ValueError, TypeError, KeyError):
        # Another process may have written its answer in the meantime. The answer of that process is then used.
        return _answer(write_once(answer_file, json.dumps({"chosen": best, "seconds": seconds})), cases)
    return best


def _answer(text: str, names: Iterable[_Name]) -> _Name:
    """Return the name from the text of an answer file.

    Raises:
        ValueError, TypeError, KeyError: If the text is broken, or if no case has the name.
    """
    return {name: name for name in names}[json.loads(text)["chosen"]]


def _median_seconds(cases: Mapping[_Name, Callable[[], object]]) -> dict[_Name, float]:
    """Return the median time of each case in seconds.

    The cases run in turns. If the machine is busy for a moment, more than one case becomes slower.
    """
    seconds: dict[_Name, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}
