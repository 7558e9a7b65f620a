"""Progress: rate and time left, a bar that moves with each batch, and log lines that do not tear the bar."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
import sys
from pathlib import Path

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from rasterembed.dataset.embedding import EmbeddingJob, Execution, Progress, embed_shard
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.model.choice import Dinov3
from rasterembed.progress.pace import Pace, describe_seconds
from rasterembed.progress.progress_bar import progress_bar
from rasterembed.raster.grid import Grid
from rasterembed.raster.source import register
from rasterembed.store.object_store import ObjectStore
from tasks.progress import _logs_above_the_bar
from tasks.workers import tiles_underway
from tests.support.embedding import noise_raster


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


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


def test_lines_are_printed_above_the_bar_and_never_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    handler = PrefectConsoleHandler(stream=terminal, styles={})
    logging.root.addHandler(handler)
    progress = Progress(total=8)
    try:
        with progress_bar(progress), _logs_above_the_bar(terminal):
            progress.add(3)
            logging.getLogger("prefect.tests").error("logged by Prefect")
            print("printed", file=sys.stderr)
            progress.add(5)
        logging.getLogger("prefect.tests").error("logged afterwards")
    finally:
        logging.root.removeHandler(handler)
    assert sys.stderr is terminal
    raw = terminal.getvalue()
    assert "8/8" in raw
    for text in ("logged by Prefect", "printed", "logged afterwards"):
        line = re.search(rf"([^\r\n]*){text}[^\r\n]*\n", raw)
        assert line is not None, raw
        assert "tile/s" not in line[0], raw


def test_a_terminal_without_a_width_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, terminal = pty.openpty()  # A new pseudo-terminal has the size 0 x 0.
    with os.fdopen(terminal, "w") as stream:
        assert os.get_terminal_size(terminal).columns == 0
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress(total=8)
        with progress_bar(progress):
            assert b"| 0/8 [" in os.read(screen, 1000)
            progress.add(8)
    assert b"| 8/8 [" in os.read(screen, 1000)
    os.close(screen)


def test_the_bar_moves_with_each_batch_of_a_shard(tmp_path: Path, tiny_vit: Path) -> None:
    noise_raster(tmp_path / "scene.tif")
    store = ObjectStore(root=str(tmp_path / "store"))
    settings = PlanSettings(grid=Grid(size=32), model=Dinov3(model=str(tiny_vit)))
    plan = make_plan(store, register(store, str(tmp_path / "scene.tif")), "scene", settings)
    assert (plan.sharding.count, plan.sharding.tile_count) == (1, 16)
    steps: list[int] = []
    progress = Progress(16, on_change=steps.append)
    job = EmbeddingJob(Execution(batch_size=4))
    embed_shard(store, plan, 0, job, progress)
    assert steps == [4, 4, 4, 4]
    assert tiles_underway(plan.sharding, [(range(1), 50.0)], set()) == 8
    assert tiles_underway(plan.sharding, [(range(1), 100.0)], {0}) == 0
    assert (progress.done, progress.computed) == (16, 16)

    again = Progress(16)
    embed_shard(store, plan, 0, job, again)
    assert (again.done, again.computed) == (16, 0)
