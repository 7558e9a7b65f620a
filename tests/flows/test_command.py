"""The command line: options from the flow's parameters, one line and a status for what goes wrong."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from examples.landscape import make_scene
from flows import child_flow, embed_shards
from flows.command import run
from flows.raster_embeddings import raster_embeddings
from tests.conftest import PROJECT
from tests.support.prefect_server import PrefectServer


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("scene"), width=1024, height=1024).raster


def _start(*arguments: str, server: PrefectServer, held_after: int | None = None) -> subprocess.Popen[str]:
    """Start the flow as a command. With `held_after`, it waits after so many batches; see `tests.support.held_run`."""
    held = [] if held_after is None else ["tests.support.held_run", str(held_after)]
    module = [*held, "flows.raster_embeddings"]
    return subprocess.Popen(
        [sys.executable, "-m", *module, *arguments],
        env=server.environment(),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_help_lists_every_parameter_with_its_meaning_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(raster_embeddings, ["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for option, meaning, default in [
        ("--root", "Folder or s3://bucket/prefix", None),
        ("--model", "Hub id of a DINOv3 checkpoint", "demo"),
        ("--dataset-id", "Name of the dataset", None),
        ("--size", "Side of a tile in px", "224"),
        ("--edge", "What happens to tiles", "pad"),
        ("--pooling", "The CLS token", "cls"),
        ("--batch-size", "Number of tiles in a batch for the model", None),
        ("--min-valid-fraction", "A tile with a smaller share is skipped", "0.05"),
    ]:
        after = text[text.index(f" {option} ") :]
        assert meaning in after[:200]
        if default:
            assert f"[default: {default}]" in after[:420]


def test_the_flow_of_a_share_explains_that_it_is_not_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in ((["--help"], 0), ([], 2), (["a.tif"], 2)):
        with pytest.raises(SystemExit) as end:
            child_flow.explain(arguments, embed_shards.EXPLANATION)
        assert end.value.code == status
        printed = capsys.readouterr()
        text = printed.err if status else printed.out
        assert "python -m flows.raster_embeddings --help" in text
        assert "docs/scaling.md" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--size", "17"], "--size: give a multiple of 16, not '17'"),
        (["--stride", "0"], "--stride: give 1 or more, not '0'"),
        (["--percentile", "98", "2"], "--percentile: the first value must be below the second"),
        (["--bands", "1,2"], "--bands: give one or three band numbers, from 1"),
        (["--edge", "wrap"], "--edge"),
        (["--nothing"], "Unknown option: --nothing"),
        (["--dataset-id", "../x"], "dataset id '../x' is not allowed"),
        (["--root", "ftp://there"], "the root is neither a folder nor s3://bucket/prefix"),
        (["--store", "nowhere"], "object store 'nowhere'"),
        (["--weights", "nowhere"], "weights block 'nowhere'"),
        (["--device", "cuda"], "device 'cuda' is not available"),
        (["--size", "240", "--input-size", "100"], "--input-size"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    arguments: list[str],
    reason: str,
    scene: Path,
    tmp_path: Path,
    prefect_api: object,
    capfd: pytest.CaptureFixture[str],
) -> None:
    root = [] if "--root" in arguments else ["--root", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as end:
        run(raster_embeddings, [str(scene), *root, *arguments])
    assert end.value.code == 2
    output = capfd.readouterr()
    errors = [line for line in output.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert reason in errors[0]
    assert "Traceback" not in output.err + output.out


def test_a_raster_that_is_none_is_one_line_and_status_1(tmp_path: Path, prefect: PrefectServer) -> None:
    note = tmp_path / "note.tif"
    note.write_text("not a raster")
    process = _start(str(note), "--root", str(tmp_path / "store"), server=prefect)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    last = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(last) == 1
    assert f"{note}: not a raster that can be read here" in last[0]
    assert errors.count("not a raster that can be read here") == 1  # Prefect would print it four times.
    assert "Traceback" not in output + errors


def test_a_run_prints_where_the_dataset_is(scene: Path, tmp_path: Path, prefect: PrefectServer) -> None:
    process = _start(str(scene), "--root", str(tmp_path / "store"), "--dataset-id", "a", server=prefect)
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert f"manifest: {tmp_path}/store/datasets/a/manifest.json" in output
    assert "rows: 25" in output
    assert "skipped: 0" in output
    assert "tiles per second: " in output
    program = shlex.split(output.partition("search: ")[2])[0]
    assert (PROJECT / program).is_file() or shutil.which(program)  # A shell in the folder of the command starts it.


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_complete_shards_and_nothing_else(
    how: signal.Signals, scene: Path, tmp_path: Path, prefect: PrefectServer
) -> None:
    arguments = [
        "--root",
        str(tmp_path),
        "--dataset-id",
        "a",
        "--shard-tiles",
        "1",
        "--size",
        "176",
        "--batch-size",
        "1",
    ]
    process = _start(str(scene), *arguments, server=prefect, held_after=3)
    shards = tmp_path / "embeddings" / "a"
    while process.poll() is None and len(list(shards.glob("*.parquet"))) < 3:
        time.sleep(0.01)
    process.send_signal(how)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "error: interrupted" in errors
    assert not (tmp_path / "datasets" / "a" / "manifest.json").exists()
    left = sorted(shards.iterdir())
    # A held shard may be finished after the signal.
    assert 3 <= len(left) < 36
    for shard in left:
        assert shard.suffix == ".parquet"
        assert pq.read_metadata(shard).num_rows == 1

    again = _start(str(scene), *arguments, server=prefect)
    output, errors = again.communicate(timeout=240)
    assert again.returncode == 0, errors
    assert "rows: 36" in output
