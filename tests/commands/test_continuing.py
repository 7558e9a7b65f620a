"""A command that goes on after a kill says what it waits for, when it takes over, and how much is done already."""

from __future__ import annotations

import json
import re
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rasterembed.command_line.run import run
from rasterembed.commands.main import app
from rasterembed.store import lease
from tests.support.runs import exit_code_of, kill, on_change, write_raster
from tests.support.scenes import write_scene

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("plain_pictures")]

NOW = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"

SETTINGS = ("--size", "32", "--device", "cpu", "--shard-tiles", "16", "--batch-size", "4", "--shard-threads", "1")
"""With these settings, the raster of `write_raster` has four shards."""


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "POLL_S", 0.05)


def _killed(words: list[str], change: int) -> None:
    """Run a command in another process, and kill it before one of its changes to the store."""
    assert exit_code_of(partial(on_change, change, kill), _command, words) == -signal.SIGKILL


def _command(words: list[str]) -> None:
    run(app, words)


def _let_time_pass(root: Path, left_s: float) -> str:
    """Let the lease that a killed run left expire in some seconds, and return the name of the run."""
    (file,) = root.glob("*/*/lease/*.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"expires": time.time() + left_s}))
    name: str = content["run_id"]
    return name


def test_embed_tells_the_wait_the_takeover_and_the_shards_that_are_written(
    tmp_path: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raster, root = write_raster(tmp_path / "scene.tif"), tmp_path / "store"
    words = ["embed", str(raster), "--root", str(root), "--dataset-id", "scene", "--model", str(tiny_vit), *SETTINGS]
    # The run writes the plan, the tile index and three shards before its sixth change.
    _killed(words, 6)
    written = len(list((root / "embeddings/scene").glob("*.parquet")))
    assert 0 < written < 4
    names: list[str] = []

    def hold(*arguments: Any, **options: Any) -> Any:
        names.append(_let_time_pass(root, 1.5))  # The lease has not expired when the run looks for it.
        return lease.hold_lease(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("rasterembed.pipeline.hold_lease", hold)
        run(app, words)
    (name,) = names
    waits, takes, goes_on = capsys.readouterr().err.splitlines()[:3]
    told = re.fullmatch(
        rf"dataset 'scene' is being written by run {name}, which has given no sign of life for (\d+) s; if it stays "
        r"silent, this run takes over in (\d) s; otherwise this run waits up to (\d+) s",
        waits,
    )
    assert told is not None, waits
    assert int(told[1]) in (58, 59, 60)  # A lease lasts 60 s.
    assert int(told[2]) in (1, 2)
    assert int(told[3]) in (3599, 3600)
    assert re.fullmatch(
        rf"dataset 'scene': run {name} has given no sign of life since {NOW}, so this run took over its lease", takes
    )
    assert goes_on == f"continuing: {written} of 4 shards {'is' if written == 1 else 'are'} written already"

    run(app, words)  # Now nothing is left to do.
    assert "continuing" not in capsys.readouterr().err


def test_collection_embed_tells_the_scenes_that_are_complete(
    tmp_path: Path, tiny_vit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        write_scene(tmp_path / "scenes" / f"{number}.tif", number)
    root = tmp_path / "store"
    words = ["collection", "embed", str(tmp_path / "scenes"), "--collection", "survey", "--root", str(root)]
    words += ["--model", str(tiny_vit), *SETTINGS]
    _killed(words, 13)
    complete = len(list(root.glob("datasets/*/manifest.json")))
    assert 0 < complete < 3
    assert not list(root.glob("collections/*/items.parquet"))  # Only the datasets tell it.
    name = _let_time_pass(root, -3600.0)

    run(app, words)
    takes, goes_on = capsys.readouterr().err.splitlines()[:2]
    assert re.fullmatch(
        rf"collection 'survey': run {name} has given no sign of life since {NOW}, so this run took over its lease",
        takes,
    )
    does = "is" if complete == 1 else "are"
    assert goes_on == f"continuing: {complete} of 3 scenes {does} complete already"

    write_scene(tmp_path / "scenes/new.tif", 9)
    run(app, words)  # A further scene is no continuation.
    assert "continuing" not in capsys.readouterr().err
