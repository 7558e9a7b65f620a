"""Many workers: the shards in shares, as child runs of a real server on real workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from itertools import chain, pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasterembed.store.object_store import ObjectStore
from tasks.workers import shares
from tests.support.deployed import (
    ONE_THREAD,
    Runs,
    command_line,
    manifest_of,
    present,
    vectors_of,
    write_striped_raster,
)
from tests.support.prefect_server import PrefectServer
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(900)

SHARDS = 24


@given(missing=st.sets(st.integers(0, 499)), workers=st.integers(1, 1000))
def test_shares_are_contiguous_cover_the_missing_and_are_even(missing: set[int], workers: int) -> None:
    numbers = sorted(missing)
    dealt = shares(numbers, workers)
    held = [[n for n in numbers if n in share] for share in dealt]
    assert list(chain.from_iterable(held)) == numbers
    assert len(dealt) == min(workers, len(numbers))
    sizes = [len(part) for part in held]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert all(a.stop <= b.start for a, b in pairwise(dealt))
    assert all(share.start in missing and share.stop - 1 in missing for share in dealt)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 rows of 40 tiles of 32 px, a shard a row."""
    return write_striped_raster(tmp_path_factory.mktemp("scene") / "scene.tif", SHARDS, 40, 32)


OPTIONS = ("--size", "32", "--shard-tiles", "40", "--batch-size", "4", "--shard-threads", "1", "--device", "cpu")
"""Small batches: a shard takes long enough to be interrupted."""


@pytest.fixture(scope="module")
def alone(scene: Path, prefect: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """Return a store with the dataset as one process writes it."""
    root = tmp_path_factory.mktemp("alone")
    process = command_line(
        prefect.environment() | ONE_THREAD, str(scene), "--root", str(root), "--dataset-id", "alone", *OPTIONS
    )
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-3000:]
    store = ObjectStore(root=str(root))
    assert len(manifest_of(store, "alone").shards) == SHARDS
    return store


def _start(server: PrefectServer, scene: Path, root: Path, dataset: str, workers: int = 2) -> subprocess.Popen[str]:
    fleet = ("--workers", str(workers), "--worker-deployment", "embed-shards/embed-share-process")
    where = ("--root", str(root), "--dataset-id", dataset)
    return command_line(server.environment() | ONE_THREAD, str(scene), *where, *OPTIONS, *fleet)


@pytest.mark.slow
def test_two_workers_write_the_bytes_of_one_process(
    deployed: PrefectServer, scene: Path, alone: ObjectStore, tmp_path: Path
) -> None:
    process = _start(deployed, scene, tmp_path, "pair")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-3000:]
    store = ObjectStore(root=str(tmp_path))
    assert vectors_of(store, "pair").equals(vectors_of(alone, "alone"))
    assert manifest_of(store, "pair").state == manifest_of(alone, "alone").state

    runs = Runs(deployed).of_dataset("pair")
    assert {run.state_name for run in runs} == {"Completed"}
    shared = sorted((run.parameters["first"], run.parameters["stop"]) for run in runs)
    assert shared == [(0, SHARDS // 2), (SHARDS // 2, SHARDS)]
    # each shard says which run made it
    makers = {shard.number: _maker(store, shard.path) for shard in manifest_of(store, "pair").shards}
    for run in runs:
        assert {n for n, maker in makers.items() if maker == str(run.id)} == set(
            range(run.parameters["first"], run.parameters["stop"])
        )


def _maker(store: ObjectStore, key: str) -> str:
    """Return the run that a shard's receipt names."""
    with store.open(key) as file:
        return str(json.loads(pq.read_metadata(file).metadata[b"raster_embeddings"])["run_id"])


@pytest.mark.slow
def test_a_killed_child_is_recovered_and_only_what_is_missing_is_computed(
    deployed: PrefectServer, scene: Path, alone: ObjectStore, tmp_path: Path
) -> None:
    store, runs = ObjectStore(root=str(tmp_path)), Runs(deployed)
    process = _start(deployed, scene, tmp_path, "killed")
    wait_for(lambda: "part-" in "".join(present(store, "killed")), "the first shard", timeout=400)
    # the one whose share the first complete shard is of
    number = int(present(store, "killed")[0].removesuffix(".parquet").rsplit("-", 1)[1])
    victim = next(
        run for run in runs.of_dataset("killed") if run.parameters["first"] <= number < run.parameters["stop"]
    )
    doomed = runs.processes_of(str(victim.id))
    assert doomed
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output[-3000:]

    assert vectors_of(store, "killed").equals(vectors_of(alone, "alone"))
    assert runs.wait(victim.id).state_name == "Crashed"
    again = [run for run in runs.of_dataset("killed") if run.parameters["first"] == victim.parameters["first"]]
    assert sorted(run.state_name or "" for run in again) == ["Completed", "Crashed"]
    assert _maker(store, manifest_of(store, "killed").shards[number].path) == str(victim.id)
    makers = {_maker(store, shard.path) for shard in manifest_of(store, "killed").shards}
    assert makers == {str(run.id) for run in runs.of_dataset("killed")}


@pytest.mark.slow
def test_a_parent_told_to_stop_cancels_its_children_and_leaves_a_dataset_to_resume(
    deployed: PrefectServer, scene: Path, alone: ObjectStore, tmp_path: Path
) -> None:
    store, runs = ObjectStore(root=str(tmp_path)), Runs(deployed)
    process = _start(deployed, scene, tmp_path, "stopped")
    wait_for(lambda: present(store, "stopped"), "the first shard", timeout=400)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 130, output[-3000:]
    ended = [runs.wait(run.id) for run in runs.of_dataset("stopped")]
    assert {run.state_name for run in ended} == {"Cancelled"}
    assert all(not runs.processes_of(str(run.id)) for run in ended)
    before = present(store, "stopped")
    assert len(before) < SHARDS

    here = command_line(
        deployed.environment() | ONE_THREAD, str(scene), "--root", str(tmp_path), "--dataset-id", "stopped", *OPTIONS
    )
    output, _ = here.communicate(timeout=400)
    assert here.returncode == 0, output[-3000:]
    assert vectors_of(store, "stopped").equals(vectors_of(alone, "alone"))
    survivors = {shard.path.rsplit("/", 1)[1]: shard for shard in manifest_of(store, "stopped").shards}
    children = {str(run.id) for run in ended}
    assert {_maker(store, survivors[name].path) for name in before} <= children


@pytest.mark.slow
def test_a_deployment_that_does_not_exist_is_wrong_usage(prefect: PrefectServer, scene: Path, tmp_path: Path) -> None:
    process = command_line(
        prefect.environment() | ONE_THREAD, str(scene), "--root", str(tmp_path), *OPTIONS, "--workers", "2",
        "--worker-deployment", "embed-shards/nowhere",
    )  # fmt: skip
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 2, output[-3000:]
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: --worker-deployment: there is no deployment 'embed-shards/nowhere'")
    assert "make deploy" in last
    assert not list(tmp_path.glob("embeddings/**/*.parquet"))
