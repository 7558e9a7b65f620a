"""A limit for log lines, because anyone who can connect can cause warnings."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

_KINDS = 200
"""Largest number of kinds of lines to remember."""


@dataclass
class _Kind:
    """Lines with the same text before their arguments are filled in."""

    began: float
    lines: int = 0
    left_out: int = 0


class LimitRepeats(logging.Filter):
    """A filter that lets only some warnings and errors of each kind pass in each period.

    Two lines are of the same kind if their texts are equal before the arguments are filled in. The first line of the
    next period says how many lines were left out.

    Args:
        lines: number of lines of a kind in a period.
        period_s: length of a period in seconds.
    """

    def __init__(self, lines: int = 10, period_s: float = 60.0) -> None:
        super().__init__()
        self._lines = lines
        self._period_s = period_s
        self._kinds: dict[str, _Kind] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line passes."""
        if record.levelno < logging.WARNING:
            return True
        with self._lock:
            return self._passes(record, time.monotonic())

    def _passes(self, record: logging.LogRecord, now: float) -> bool:
        """Return whether a warning or an error passes. The caller holds the lock."""
        name = str(record.msg).partition("\n")[0][:200]
        kind = self._kinds.get(name)
        if kind is None or now - kind.began > self._period_s:
            if kind is not None and kind.left_out:
                record.msg = f"{record.msg!s} (such lines that were left out: {kind.left_out})"
            if len(self._kinds) >= _KINDS:
                self._kinds.clear()
            kind = self._kinds[name] = _Kind(now)
        kind.lines += 1
        kind.left_out += kind.lines > self._lines
        return kind.lines <= self._lines


def limit_repeats(loggers: Iterable[str]) -> None:
    """Limit the lines of some loggers. A logger that is limited already stays as it is.

    Args:
        loggers: names of the loggers.
    """
    for name in loggers:
        logger = logging.getLogger(name)
        if not any(isinstance(one, LimitRepeats) for one in logger.filters):
            logger.addFilter(LimitRepeats())
