"""Rate and time left of a run, as text for people."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from rasterembed.number_text import significant_text

if TYPE_CHECKING:
    from rasterembed.dataset.embedding import Progress

_WINDOW_S = 60.0
"""The rate is the mean over this many seconds."""


class Pace:
    """Measures the rate of a run, and estimates the time left.

    Args:
        unit: word for one unit of the work, such as `tile`.
    """

    def __init__(self, unit: str = "tile") -> None:
        self._units = f"{unit}s"
        self._samples: deque[tuple[float, int]] = deque()

    def describe(self, progress: Progress, now: float) -> str:
        """Return numbers of units, the rate and the time left, as text for people.

        Units that an earlier run computed count as done. They do not count for the rate.

        Args:
            progress: the progress of the run.
            now: time of a monotonic clock in seconds, later than in the call before.
        """
        text = f"{progress.shown:,} of {progress.total:,} {self._units}"
        tiles = progress.computed + progress.underway
        self._samples.append((now, tiles))
        while self._samples[-1][0] - self._samples[0][0] > _WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()
        since, before = self._samples[0]
        if tiles <= before:
            return text
        rate = (tiles - before) / (now - since)
        left = (progress.total - progress.shown) / rate
        return f"{text}, {significant_text(rate, 3)} {self._units}/s, about {describe_seconds(left)} left"

    def describe_end(self, progress: Progress, seconds: float) -> str:
        """Return numbers of units, the time and the mean rate of a run that has ended, as text for people."""
        text = f"{progress.done:,} of {progress.total:,} {self._units}"
        if progress.computed == 0:
            return text
        return (
            f"{text} in {describe_seconds(seconds)}, {significant_text(progress.computed / seconds, 3)} {self._units}/s"
        )


def describe_seconds(seconds: float) -> str:
    """Return a duration as text for people.

    Example:
        >>> describe_seconds(41.7), describe_seconds(640), describe_seconds(9000)
        ('42 s', '11 min', '2 h 30 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
