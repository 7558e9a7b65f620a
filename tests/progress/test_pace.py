"""Rate and time left of a run, as text for people."""

from __future__ import annotations

import pytest

from rasterembed.dataset.embedding import Progress
from rasterembed.progress.pace import Pace, describe_seconds


def test_the_rate_counts_only_what_this_run_computed_in_the_last_minute() -> None:
    progress, pace = Progress(total=10_000), Pace()
    progress.add(4_000, found=True)
    assert pace.describe(progress, 0.0) == "4,000 of 10,000 tiles"
    progress.add(100)
    assert pace.describe(progress, 10.0) == "4,100 of 10,000 tiles, 10 tiles/s, about 10 min left"
    for now in range(20, 200, 10):  # The run becomes slower: 1 tile in a second.
        progress.add(10)
        text = pace.describe(progress, float(now))
    assert text == "4,280 of 10,000 tiles, 1 tiles/s, about 1 h 35 min left"
    assert pace.describe_end(progress, 190.0) == "4,280 of 10,000 tiles in 3 min, 1.47 tiles/s"
    assert pace.describe_end(Progress(total=5, done=5), 1.0) == "5 of 5 tiles"


def test_tiles_that_workers_report_are_shown_and_are_not_counted_twice() -> None:
    changes: list[int] = []
    progress, pace = Progress(total=100, on_change=changes.append), Pace()
    assert pace.describe(progress, 0.0) == "0 of 100 tiles"
    progress.add(0, underway=30)
    assert pace.describe(progress, 10.0) == "30 of 100 tiles, 3 tiles/s, about 23 s left"
    progress.add(40, underway=10)  # The first shard is complete, and the second has begun.
    assert pace.describe(progress, 20.0) == "50 of 100 tiles, 2.5 tiles/s, about 20 s left"
    progress.add(0, underway=0)  # The worker died.
    assert (progress.done, progress.shown) == (40, 40)
    assert changes == [30, 20, -10]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "1 h 30 min"), (7320, "2 h 2 min")]
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text
