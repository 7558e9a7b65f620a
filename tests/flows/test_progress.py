"""Progress of a flow: a bar that moves with each batch, and log lines that do not tear the bar."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from rasterembed.dataset.embedding import EmbeddingJob, Execution, Progress, embed_shard
from rasterembed.dataset.plan import PlanSettings, make_plan
from rasterembed.model.choice import Dinov3
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
