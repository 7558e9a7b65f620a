"""A collection on two workers: batches of scenes as child runs of a real server, and what remains after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasterembed.collection.collection import Collection
from rasterembed.collection.found_scene import FoundScene
from rasterembed.collection.scene_row import SceneState
from rasterembed.dataset.manifest import ALL_STATES
from rasterembed.errors import DataError
from rasterembed.model.choice import Dinov3, resolve_model
from rasterembed.pipeline import EmbedOptions
from rasterembed.raster.source import register
from rasterembed.scene_batches import Batch, clear_batches, deal_to_workers, read_batch, write_batch
from rasterembed.scene_pipeline import SceneJob
from rasterembed.store.layout import CollectionLayout
from rasterembed.store.object_store import ObjectStore
from tests.support.deployed import ONE_THREAD, PROJECT, Runs
from tests.support.prefect_server import PrefectServer
from tests.support.scenes import write_scene
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

NAME = "survey"
LAYOUT = CollectionLayout(NAME)
SCENES = 60


@given(st.lists(st.one_of(st.none(), st.integers(0, 2**31)), max_size=200), st.integers(1, 20))
def test_each_scene_is_dealt_once_in_order_to_few_batches(sizes: list[int | None], workers: int) -> None:
    scenes = [FoundScene(f"/{number}.tif", size=size) for number, size in enumerate(sizes)]
    batches = list(deal_to_workers(scenes, workers))
    assert [scene for _, batch in batches for scene in batch] == scenes
    assert all(scenes[first] is batch[0] for first, batch in batches)
    if None not in sizes and sum(size or 0 for size in sizes) < 2**30:
        # Full by their number or full by their size: at most two for each half of a worker.
        assert len(batches) <= 4 * workers + 1


def test_a_batch_is_read_as_it_was_written_and_not_as_somebody_changed_it(tmp_path: Path) -> None:
    store = ObjectStore(root=str(tmp_path / "store"))
    source = register(store, str(write_scene(tmp_path / "a.tif")))
    scene = FoundScene(
        "/a.tif", 7, "v1", 1.5, "item", datetime(2026, 6, 21, tzinfo=UTC), 12.5, b"\x01\xff\x00", source, None
    )
    scenes = [scene, FoundScene("/b.tif", problem="it is away")]
    model = resolve_model(Dinov3(device="cpu"), 64)
    job = SceneJob(collection_id=NAME, listing="/", options=EmbedOptions(), model=model, tiles=8)
    batch = write_batch(store, LAYOUT, job, 3, 10, scenes)
    assert (batch.first, batch.stop) == (10, 12)
    assert read_batch(store, LAYOUT, batch) == (job, tuple(scenes))
    key = LAYOUT.batch(3, 10, 12)
    content = json.loads(store.read(key) or b"")
    content["scenes"][0]["uri"] = "/etc/passwd"
    store.write(key, json.dumps(content).encode())
    with pytest.raises(DataError, match="it is not the batch that the run wrote"):
        read_batch(store, LAYOUT, batch)
    clear_batches(store, LAYOUT)
    with pytest.raises(DataError, match="the batch is missing"):
        read_batch(store, LAYOUT, replace(batch, lease=4))
    assert isinstance(batch, Batch)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small scenes, a damaged one, one without a CRS, and two of several shards."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(SCENES):
        write_scene(folder / f"{number:03d}.tif", number)
    (folder / "020.tif").write_text("damaged")
    write_scene(folder / "030.tif", 30, crs=None)
    for number in (5, 45):
        write_scene(folder / f"{number:03d}.tif", number, side=320)
    return folder


def _start(server: PrefectServer, scenes: Path, root: Path, *more: str) -> subprocess.Popen[str]:
    options = ("--size", "32", "--batch-size", "4", "--shard-tiles", "16", "--shard-threads", "1", "--device", "cpu")
    return subprocess.Popen(
        [sys.executable, "-m", "flows.embed_collection", NAME, str(scenes), "--root", str(root), *options, *more],
        env=server.environment() | ONE_THREAD,
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _end(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    return output


FLEET = ("--workers", "2", "--worker-deployment", "embed-scenes/embed-batch-process")


@pytest.fixture(scope="module")
def alone(scenes: Path, prefect: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Return the store of a run without workers and without a disturbance."""
    root = tmp_path_factory.mktemp("alone")
    _end(_start(prefect, scenes, root))
    return ObjectStore(root=str(root))


def _content(store: ObjectStore) -> dict[str, bytes]:
    """Return catalogue, STAC Collection and table as bytes, and the vectors of each scene."""
    collection = Collection.open(store, NAME)
    keys = [LAYOUT.catalogue, LAYOUT.stac_collection]
    keys += [LAYOUT.table_file(name) for name in store.sizes(LAYOUT.table_folder)]
    content = {key: store.read(key) or b"" for key in keys}
    states = [SceneState(state) for state in ALL_STATES]
    return content | {dataset.id: dataset.vectors().tobytes() for dataset in collection.datasets(states)}


def _manifests(root: Path) -> int:
    return len(list(root.glob("datasets/*/manifest.json")))


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one_process_though_one_of_them_is_killed(
    deployed: PrefectServer, scenes: Path, alone: ObjectStore, tmp_path: Path
) -> None:
    runs = Runs(deployed)
    process = _start(deployed, scenes, tmp_path, *FLEET)
    wait_for(lambda: _manifests(tmp_path) >= 2, "two complete scenes", timeout=400)
    victims = [run for run in runs.named(f"{NAME}-0") if run.state_name == "Running"]
    for pid in runs.processes_of(str(victims[0].id)):
        os.kill(pid, signal.SIGKILL)
    _end(process)
    store = ObjectStore(root=str(tmp_path))
    assert _content(store) == _content(alone)
    assert {row.state for row in Collection.open(store, NAME).catalogue.rows()} == {SceneState.READY, SceneState.FAILED}
    children = runs.named(f"{NAME}-0")
    assert sorted({run.state_name or "" for run in children}) == ["Completed", "Crashed"]
    assert len(children) <= 10
    assert store.sizes(LAYOUT.work_folder) == {}


@pytest.mark.slow
def test_a_killed_parent_leaves_a_collection_that_the_next_run_completes(
    deployed: PrefectServer, scenes: Path, alone: ObjectStore, tmp_path: Path
) -> None:
    process = _start(deployed, scenes, tmp_path, *FLEET)
    wait_for(lambda: _manifests(tmp_path) >= 2, "two complete scenes", timeout=400)
    process.kill()
    process.communicate()
    # The next run waits until the lease of the killed run has expired. Its children end meanwhile, or are refused.
    _end(_start(deployed, scenes, tmp_path, *FLEET))
    store = ObjectStore(root=str(tmp_path))
    assert _content(store) == _content(alone)
    assert store.sizes(LAYOUT.work_folder) == {}
