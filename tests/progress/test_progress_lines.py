"""Progress of a command whose output goes to a file or a pipe: a line about once a minute, and none on a terminal."""

from __future__ import annotations

import io
import re
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rasterembed.collection.scene_row import SceneRow
from rasterembed.command_line.run import run
from rasterembed.commands.collection_steps import TerminalCollectionSteps
from rasterembed.commands.main import app
from rasterembed.dataset.embedding import Progress
from rasterembed.progress import progress_bar as bar_module
from rasterembed.progress import progress_lines as lines_module
from rasterembed.progress.progress_lines import LINES_EVERY_S, progress_lines
from rasterembed.progress.scene_progress import SceneProgress
from tests.support.scenes import write_scene


class Pipe(io.StringIO):
    """A stream that is no terminal, and that says when a line of progress has come."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if "progress: " in self.getvalue():
            self.told.set()
        return written


class Terminal(Pipe):
    def isatty(self) -> bool:
        return True


def pipe_of(monkeypatch: pytest.MonkeyPatch) -> Pipe:
    """Let standard error be a pipe that gets a line in every hundredth of a second."""
    stream = Pipe()
    # pytest sets `sys.stderr` after the fixtures have run, so this is no fixture.
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(lines_module, "LINES_EVERY_S", 0.01)
    return stream


def test_a_pipe_gets_lines_until_the_end_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipe_of(monkeypatch)
    calls: list[float] = []

    def describe(now: float) -> str:
        calls.append(now)
        return f"call {len(calls)}"

    with progress_lines(describe):
        assert pipe.told.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
    printed = pipe.getvalue().splitlines()
    # The first call only begins the measurement of the rate.
    assert printed == [f"progress: call {number}" for number in range(2, len(calls) + 1)]
    assert calls == sorted(calls)
    assert LINES_EVERY_S == 60


def test_a_terminal_and_a_closed_stream_get_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Terminal(), closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_lines(lambda _: pytest.fail("a line was made")):
            pass


def test_a_pipe_that_nobody_reads_stops_the_lines_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        tried = threading.Event()

        def write(self, _: str) -> int:
            self.tried.set()
            raise BrokenPipeError

    stream = Broken()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(lines_module, "LINES_EVERY_S", 0.01)
    with progress_lines(lambda _: "text"):
        assert stream.tried.wait(60)


def test_scenes_tiles_rate_and_time_left() -> None:
    shown = SceneProgress(4)
    assert shown.describe(0.0) == "0 of 4 scenes"
    first, second = Progress(100), Progress(300)
    shown.begin("a", first)
    assert shown.describe(10.0) == "0 of 4 scenes, 0 of 400 tiles (estimated for 3 of 4 scenes)"
    first.add(50)
    shown.begin("b", second)
    # Two scenes are not opened: 400 known tiles and twice their mean of 200. 5 tiles/s: 750 tiles take 150 s.
    assert shown.describe(20.0) == (
        "0 of 4 scenes, 50 of 800 tiles, 5 tiles/s, about 2 min left (estimated for 2 of 4 scenes)"
    )
    first.add(50)
    shown.end("a")
    shown.end("c")  # It could not be read, so it has no tiles.
    second.add(100, found=True)  # An earlier run computed them: they do not count for the rate.
    assert shown.describe(30.0) == (
        "2 of 4 scenes, 200 of 600 tiles, 5 tiles/s, about 80 s left (estimated for 1 of 4 scenes)"
    )
    shown.begin("d", Progress(10))
    assert shown.describe(40.0) == "2 of 4 scenes, 200 of 410 tiles, 3.33 tiles/s, about 63 s left"


def test_the_finished_part_of_a_run_grows_with_the_tiles_of_its_scenes() -> None:
    changes: list[float] = []
    shown = SceneProgress(4, changes.append)
    first, second = Progress(100), Progress(300)
    shown.begin("a", first)
    first.add(50)
    shown.begin("b", second)
    second.add(75)
    first.add(50)
    shown.end("a")  # All its tiles were counted.
    shown.end("c")  # It could not be read.
    shown.end("b")  # It failed after a quarter of its tiles.
    assert changes == [0.5, 0.25, 0.5, 1.0, 0.75]


@pytest.mark.usefixtures("plain_pictures")
def test_the_bar_moves_within_a_scene_and_other_lines_do_not_tear_it(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    # Usually the bar is drawn at most ten times in a second.
    monkeypatch.setattr(bar_module, "tqdm", partial(bar_module.tqdm, mininterval=0))
    write_scene(tmp_path / "scenes/a.tif", side=128)
    original = Progress.add

    def add(progress: Progress, tiles: int, **rest: Any) -> None:
        print("written by another library", file=sys.stderr)
        original(progress, tiles, **rest)

    monkeypatch.setattr(Progress, "add", add)
    run(app, [*words("collection", tmp_path / "scenes", tmp_path / "store", tiny_vit), "--batch-size", "4"])
    assert sys.stderr is terminal
    raw = terminal.getvalue()
    # The scene has 16 tiles, in four batches.
    assert [text for text in ("0.0/1", "0.2/1", "0.5/1", "0.8/1", "1.0/1") if f"| {text} [" not in raw] == []
    lines = re.findall(r"[^\r\n]*written by another library[^\r\n]*\n", raw)
    assert len(lines) >= 4
    assert {line.strip() for line in lines} == {"written by another library"}


def words(command: str, scenes: Path, root: Path, model: Path) -> list[str]:
    name = ["collection", "embed", str(scenes), "--collection", "survey"] if command == "collection" else []
    return [
        *(name or ["embed", str(scenes / "a.tif")]),
        *("--root", str(root), "--model", str(model), "--size", "32", "--device", "cpu"),
    ]


@pytest.mark.usefixtures("plain_pictures")
def test_collection_embed_tells_scenes_and_tiles_in_a_pipe(
    tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipe_of(monkeypatch)
    for number, name in enumerate("ab"):
        write_scene(tmp_path / "scenes" / f"{name}.tif", number)
    original = TerminalCollectionSteps.on_scene

    def on_scene(steps: TerminalCollectionSteps, row: SceneRow) -> None:
        original(steps, row)
        pipe.truncate(0)
        pipe.told.clear()
        assert pipe.told.wait(60)  # The run does not end before a line has come.

    monkeypatch.setattr(TerminalCollectionSteps, "on_scene", on_scene)
    run(app, words("collection", tmp_path / "scenes", tmp_path / "store", tiny_vit))
    last = [line for line in pipe.getvalue().splitlines() if "progress: " in line][-1].lstrip("\0")
    # Each scene of 64x64 px has four tiles of 32x32 px.
    assert last.startswith("progress: 2 of 2 scenes, 8 of 8 tiles")


@pytest.mark.usefixtures("plain_pictures")
def test_embed_tells_tiles_in_a_pipe(tmp_path: Path, tiny_vit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = pipe_of(monkeypatch)
    write_scene(tmp_path / "scenes" / "a.tif", 0)
    original = Progress.add

    def add(progress: Progress, *arguments: int) -> None:
        assert pipe.told.wait(60)
        original(progress, *arguments)

    monkeypatch.setattr(Progress, "add", add)
    run(app, words("dataset", tmp_path / "scenes", tmp_path / "store", tiny_vit))
    assert pipe.getvalue().splitlines()[0] == "progress: 0 of 4 tiles"
