"""A run may be killed, stopped, started twice or run out of space: the next run ends like an undisturbed one."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from rasterembed.dataset.embedding import EmbeddingJob, Execution, Progress, embed_shard
from rasterembed.dataset.manifest import Manifest, read_manifest
from rasterembed.dataset.plan import Plan, PlanSettings, make_plan
from rasterembed.dataset.shards import Shard, ShardWriter
from rasterembed.errors import Cancelled, ConfigurationChangedError, DataError
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.raster.source import register
from rasterembed.raster.validity import Validity
from rasterembed.store.folder import FolderStorage
from rasterembed.store.object_store import ObjectStore
from tests.support.promise import assert_tables_agree
from tests.support.runs import (
    DATASET,
    SHARDS,
    Pause,
    Vectors,
    after,
    before,
    choices,
    expected_files,
    files,
    kill,
    on_change,
    run,
    start,
    tiles,
    vectors,
    write_raster,
)

pytestmark = pytest.mark.usefixtures("plain_pictures")

LEASE_S = 0.5
"""For runs that are killed: how long the next one has to wait."""


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("raster") / "scene.tif")


@pytest.fixture(scope="module")
def asked(tiny_vit: Path) -> dict[str, Any]:
    return choices(tiny_vit)


@pytest.fixture(scope="module")
def undisturbed(raster: Path, asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """A finished dataset; not to be changed."""
    store = ObjectStore(root=str(tmp_path_factory.mktemp("undisturbed")))
    outcome = run(raster, store, **asked)
    assert (outcome.error, outcome.embedded) == ("", SHARDS)
    return store


@pytest.fixture(scope="module")
def whole(undisturbed: ObjectStore) -> dict[str, Vectors]:
    return vectors(undisturbed)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(root=str(tmp_path / "store"))


@pytest.fixture
def finished(undisturbed: ObjectStore, store: ObjectStore) -> ObjectStore:
    """A finished dataset of the test's own."""
    shutil.copytree(undisturbed.root, store.root)
    return store


def _manifest(store: ObjectStore) -> Manifest:
    manifest = read_manifest(store, DATASET)
    assert manifest is not None
    return manifest


def _assert_finished(store: ObjectStore, whole: dict[str, Vectors]) -> None:
    assert vectors(store) == whole
    left = {name for name in files(Path(store.root)) if "/lease/" not in name}  # that is test_lease.py's matter
    assert left == expected_files(_manifest(store))
    index = (Path(store.root) / _manifest(store).index).read_bytes()
    assert hashlib.sha256(index).hexdigest() == _manifest(store).index_sha256
    assert set(pq.read_table(Path(store.root) / _manifest(store).index)["status"].to_pylist()) == {
        "embedded",
        "skipped",
    }


@pytest.mark.vectors
def test_the_undisturbed_run_is_what_the_others_are_measured_by(
    undisturbed: ObjectStore, whole: dict[str, Vectors]
) -> None:
    manifest = _manifest(undisturbed)
    assert (manifest.state, manifest.tiles, manifest.rows, manifest.skipped) == ("ready", 35, 28, 7)
    assert list(whole) == [f"part-{manifest.fingerprint[:12]}-{number:05d}.parquet" for number in range(SHARDS)]
    assert [len(shard.tiles) for shard in whole.values()] == [16, 8, 4, 0]
    assert len({shard.sha256 for shard in whole.values() if shard.tiles}) == 3
    first = next(iter(whole.values()))
    assert first.tiles[3:5] == ("r000000_c000003", "r000001_c000000")
    _assert_finished(undisturbed, whole)


def _kill_before_change(number: int) -> None:
    on_change(number, kill)


@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_before_each_of_its_changes_to_the_store_ends_like_the_undisturbed_one(
    step: int, raster: Path, asked: dict[str, Any], store: ObjectStore, whole: dict[str, Vectors]
) -> None:
    """With a step of 3, it is killed before every third change."""
    embedded, states = [], []
    for number in count(1, step):
        outcome = run(raster, store, hook=partial(_kill_before_change, number), lease_s=LEASE_S, **asked)
        shards = store.sizes(f"embeddings/{DATASET}")
        if outcome.exit_code == 0:
            break
        assert outcome.exit_code == -signal.SIGKILL
        manifest = read_manifest(store, DATASET)
        states.append(manifest.state if manifest else None)
        embedded.append(len(shards))
    assert embedded == sorted(embedded)
    assert embedded[-1] == SHARDS
    assert len(set(embedded)) > 2  # It was killed between shards.
    # It was killed before and after the manifest. The dataset was never ready before the last change.
    assert list(dict.fromkeys(states)) == [None, "embedded"]
    _assert_finished(store, whole)


def _kill_inside_a_shard() -> None:
    """With all rows of the second shard in the file, but no footer."""
    numbers = iter(range(100))
    after(ShardWriter, "_flush", lambda _: kill() if next(numbers) == 1 else None)


def _kill_with_a_shard_in_place_and_its_part_file_left() -> None:
    after(FolderStorage, "create_from_file", lambda _, path, file: kill() if path.endswith("1.parquet") else None)


def _kill_before_the_index_is_moved_into_place() -> None:
    before(os, "replace", lambda source, target: kill() if target.endswith("index.parquet") else None)


def _kill_before_the_manifest_is_moved_into_place() -> None:
    before(os, "replace", lambda source, target: kill() if target.endswith("manifest.json") else None)


@pytest.mark.parametrize(
    "hook",
    [
        _kill_inside_a_shard,
        _kill_with_a_shard_in_place_and_its_part_file_left,
        _kill_before_the_index_is_moved_into_place,
        _kill_before_the_manifest_is_moved_into_place,
    ],
)
def test_what_a_run_killed_while_writing_leaves_is_cleared_by_the_next(
    hook: Any, raster: Path, asked: dict[str, Any], store: ObjectStore, whole: dict[str, Vectors]
) -> None:
    outcome = run(raster, store, hook=hook, lease_s=LEASE_S, **asked)
    assert outcome.exit_code == -signal.SIGKILL
    assert len([name for name in files(Path(store.root)) if name.endswith(".part") and "/lease/" not in name]) == 1
    assert read_manifest(store, DATASET) is None

    assert run(raster, store, lease_s=LEASE_S, **asked).error == ""
    _assert_finished(store, whole)


def _pause_before_batch(number: int, pause: Pause) -> None:
    """In the middle of computing a shard: the `number`th batch of vectors is about to be written."""
    batches = count(1)

    before(ShardWriter, "append", lambda *_: pause.stay() if next(batches) == number else None)


@pytest.fixture
def pause() -> Pause:
    return Pause()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_the_system_ends_leaves_complete_shards_and_is_taken_up_by_the_next(
    number: signal.Signals,
    raster: Path,
    asked: dict[str, Any],
    store: ObjectStore,
    whole: dict[str, Vectors],
    pause: Pause,
) -> None:
    first = start(raster, store, hook=partial(_pause_before_batch, 5, pause), lease_s=LEASE_S, **asked)
    pause.reached()
    first.signal(number)
    assert first.end().exit_code == -number
    names = list(whole)
    assert list(store.sizes(f"embeddings/{DATASET}")) == names[:1]
    complete = files(Path(store.root))[f"embeddings/{DATASET}/{names[0]}"]

    second = run(raster, store, lease_s=LEASE_S, **asked)
    assert (second.error, second.embedded) == ("", SHARDS - 1)
    assert " has given no sign of life since " in second.said
    assert f"continuing: 1 of {SHARDS} shards is written already\n" in second.said
    _assert_finished(store, whole)
    assert files(Path(store.root))[f"embeddings/{DATASET}/{names[0]}"] == complete


def _stay_at_a_batch_until_told_to_stop(number: int, pause: Pause) -> None:
    batches, progress = count(1), list[Progress]()
    after(Progress, "__init__", lambda made, *_: progress.append(made))

    def stay(*_: Any) -> None:
        if next(batches) == number:
            pause.arrive()
            progress[0].stop.wait()

    before(ShardWriter, "append", stay)


def test_an_interrupted_run_leaves_complete_shards_and_no_lease(
    raster: Path,
    asked: dict[str, Any],
    store: ObjectStore,
    whole: dict[str, Vectors],
    pause: Pause,
) -> None:
    first = start(raster, store, hook=partial(_stay_at_a_batch_until_told_to_stop, 5, pause), **asked)
    pause.reached()
    first.signal(signal.SIGINT)
    outcome = first.end()
    assert (outcome.exit_code, outcome.error) == (1, "KeyboardInterrupt: ")
    assert list(store.sizes(f"embeddings/{DATASET}")) == list(whole)[:1]
    assert not list(Path(store.root).rglob("*.part"))
    assert read_manifest(store, DATASET) is None

    at_once = asked | {"execution": Execution(batch_size=4, lease_wait=0)}
    assert run(raster, store, **at_once).error == ""
    _assert_finished(store, whole)


def _take_another_number_of_threads() -> None:
    import torch

    torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)


@pytest.mark.vectors
def test_a_run_taken_up_with_another_number_of_threads_agrees_within_the_promise(
    raster: Path,
    asked: dict[str, Any],
    undisturbed: ObjectStore,
    store: ObjectStore,
    whole: dict[str, Vectors],
    pause: Pause,
) -> None:
    first = start(raster, store, hook=partial(_pause_before_batch, 5, pause), lease_s=LEASE_S, **asked)
    pause.reached()
    first.signal(signal.SIGKILL)
    first.end()
    second = run(raster, store, hook=_take_another_number_of_threads, lease_s=LEASE_S, **asked)
    assert (second.error, second.embedded) == ("", SHARDS - 1)
    name, expected = next(iter(whole.items()))
    assert vectors(store)[name] == expected
    assert_tables_agree(tiles(undisturbed), tiles(store))


@pytest.fixture(scope="module")
def plan(raster: Path, asked: dict[str, Any], undisturbed: ObjectStore) -> Plan:
    settings = {name: value for name, value in asked.items() if name not in ("dataset_id", "execution")}
    return make_plan(undisturbed, register(undisturbed, str(raster)), DATASET, PlanSettings(**settings))


def test_a_shard_that_is_told_to_stop_leaves_nothing(plan: Plan, asked: dict[str, Any], store: ObjectStore) -> None:
    progress = Progress(plan.sharding.tile_count)
    progress.on_change = lambda _: progress.stop.set()
    with pytest.raises(Cancelled):
        embed_shard(store, plan, 0, EmbeddingJob(execution=asked["execution"]), progress)
    assert progress.done == 4  # a batch
    assert files(Path(store.root)) == {}


@pytest.mark.vectors
def test_two_writers_of_a_shard_agree_on_one_file(
    plan: Plan, asked: dict[str, Any], store: ObjectStore, whole: dict[str, Vectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2)
    finish = ShardWriter.finish

    def wait_for_the_other(*arguments: Any) -> None:
        together.wait(60)
        finish(*arguments)

    monkeypatch.setattr(ShardWriter, "finish", wait_for_the_other)
    results: dict[str, Shard] = {}

    def write(run_id: str) -> None:
        results[run_id] = embed_shard(store, plan, 1, EmbeddingJob(execution=asked["execution"], run_id=run_id))

    writers = [threading.Thread(target=write, args=(run_id,)) for run_id in ("one", "other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert results["one"] == results["other"]
    data = store.read(results["one"].path)
    assert data is not None
    assert hashlib.sha256(data).hexdigest() == results["one"].sha256
    assert list(files(Path(store.root))) == [results["one"].path]
    receipt = json.loads(pq.read_metadata(Path(store.root) / results["one"].path).metadata[b"raster_embeddings"])
    assert receipt["run_id"] in results


def test_a_run_of_a_ready_dataset_computes_and_changes_nothing(
    raster: Path, asked: dict[str, Any], finished: ObjectStore
) -> None:
    at_first = files(Path(finished.root))
    outcome = run(raster, finished, **asked)
    assert (outcome.error, outcome.embedded, outcome.loaded) == ("", 0, 0)
    assert files(Path(finished.root)) == at_first

    script = """
import sys
from rasterembed.pipeline import EmbedOptions, embed_raster
from rasterembed.qa.thresholds import QaThresholds
from rasterembed.raster.grid import Grid
from rasterembed.model.choice import Dinov3
from rasterembed.dataset.selection import Selection
from rasterembed.store.object_store import ObjectStore

raster, root, dataset_id, model = sys.argv[1:]
options = EmbedOptions(
    dataset_id=dataset_id, grid=Grid(size=32), model=Dinov3(model=model, device="cpu"),
    selection=Selection(shard_tiles=16),
)
embed_raster(ObjectStore(root=root), raster, options)
print("torch" in sys.modules)
"""
    model = asked["model"].model
    command = [sys.executable, "-c", script, str(raster), finished.root, DATASET, model]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False\n"
    assert files(Path(finished.root)) == at_first


def test_other_ways_of_doing_the_work_are_no_other_configuration(
    raster: Path, asked: dict[str, Any], finished: ObjectStore
) -> None:
    at_first = files(Path(finished.root))
    another_way = asked | {"execution": Execution(batch_size=64, shard_threads=3, lease_wait=1)}
    embed_raster(finished, str(raster), EmbedOptions(**another_way))
    assert files(Path(finished.root)) == at_first


def test_another_configuration_is_refused_with_both_shown(
    raster: Path, asked: dict[str, Any], finished: ObjectStore
) -> None:
    at_first = files(Path(finished.root))
    other = asked | {
        "model": asked["model"].model_copy(update={"pooling": "mean"}),
        "selection": asked["selection"].model_copy(update={"min_valid_fraction": 0.25}),
    }
    outcome = run(raster, finished, **other)
    assert outcome.error == (
        "ConfigurationChangedError: dataset 'scene' exists with another configuration "
        '(`pooling`: "cls" in the dataset, "mean" requested; '
        "`min_valid_fraction`: 0.05 in the dataset, 0.25 requested): "
        "repeat the settings of the first run, choose another dataset id, or give `replace` to embed the raster again"
    )
    assert outcome.loaded == 0
    assert files(Path(finished.root)) == at_first


def test_only_the_differences_that_a_person_made_are_shown(
    raster: Path, asked: dict[str, Any], finished: ObjectStore
) -> None:
    # Stride, shards and the model's input follow from the size of the tiles.
    outcome = run(raster, finished, **asked | {"grid": Grid(size=48)})
    assert "exists with another configuration (`size`: 32 in the dataset, 48 requested): " in str(outcome.error)
    # A stride that a person gave is a difference of its own.
    outcome = run(raster, finished, **asked | {"grid": Grid(size=48, stride=24)})
    assert "(`size`: 32 in the dataset, 48 requested; `stride`: " in str(outcome.error)
    assert "24 requested): " in str(outcome.error)
    # The shape of the shards follows from one parameter, which is named once.
    outcome = run(raster, finished, **asked | {"selection": asked["selection"].model_copy(update={"shard_tiles": 1})})
    assert outcome.error is not None
    assert outcome.error.count("`shard_tiles`") == 1
    assert "shard." not in outcome.error


@pytest.fixture(scope="module")
def replacing(asked: dict[str, Any]) -> dict[str, Any]:
    return asked | {"model": asked["model"].model_copy(update={"pooling": "mean"}), "replace": True}


@pytest.fixture(scope="module")
def replacement(
    raster: Path, replacing: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Vectors]:
    """Vectors of an undisturbed run of the other configuration."""
    store = ObjectStore(root=str(tmp_path_factory.mktemp("replacement")))
    assert run(raster, store, **replacing).error == ""
    return vectors(store)


@pytest.mark.slow
def test_readers_of_a_dataset_being_replaced_find_the_old_or_the_new_whole_wherever_the_run_is_killed(
    raster: Path,
    replacing: dict[str, Any],
    finished: ObjectStore,
    whole: dict[str, Vectors],
    replacement: dict[str, Vectors],
) -> None:
    assert not set(whole) & set(replacement)
    found = []
    for number in count(1):
        outcome = run(raster, finished, hook=partial(_kill_before_change, number), lease_s=LEASE_S, **replacing)
        found.append(vectors(finished))
        if outcome.exit_code == 0:
            break
        assert outcome.exit_code == -signal.SIGKILL
    switch = found.index(replacement)
    assert switch < len(found) - 1  # it was killed after the manifest switched, too
    assert all(now == whole for now in found[:switch])
    assert all(now == replacement for now in found[switch:])
    _assert_finished(finished, replacement)


@pytest.mark.vectors
def test_readers_find_a_whole_dataset_at_every_change_that_replacing_makes(
    raster: Path,
    replacing: dict[str, Any],
    finished: ObjectStore,
    whole: dict[str, Vectors],
    replacement: dict[str, Vectors],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    reader = ObjectStore(root=finished.root)
    with monkeypatch.context() as patch:
        for name in ("write", "write_from_file", "create_from_file", "delete"):
            change = getattr(ObjectStore, name)

            def watched(*arguments: Any, change: Any = change) -> Any:
                result = change(*arguments)
                found.append(vectors(reader))
                return result

            patch.setattr(ObjectStore, name, watched)
        embed_raster(finished, str(raster), EmbedOptions(**replacing))
    switch = found.index(replacement)
    assert [now == whole for now in found[:switch]] == [True] * switch
    assert all(now == replacement for now in found[switch:])


def _kill_before(ending: str) -> None:
    before(ObjectStore, "write", lambda _, key, __: kill() if key.endswith(ending) else None)


def test_a_replacement_that_died_is_cleared_by_a_run_of_the_old_configuration(
    raster: Path, asked: dict[str, Any], replacing: dict[str, Any], finished: ObjectStore, whole: dict[str, Vectors]
) -> None:
    outcome = run(raster, finished, hook=partial(_kill_before, "manifest.json"), lease_s=LEASE_S, **replacing)
    assert outcome.exit_code == -signal.SIGKILL
    assert len(store_shards := finished.sizes(f"embeddings/{DATASET}")) == 2 * SHARDS, store_shards

    outcome = run(raster, finished, lease_s=LEASE_S, **asked)
    assert (outcome.error, outcome.embedded) == ("", 0)
    _assert_finished(finished, whole)


def test_a_manifest_that_cannot_be_read_is_replaced_only_when_asked(
    raster: Path, asked: dict[str, Any], finished: ObjectStore, whole: dict[str, Vectors]
) -> None:
    path = Path(finished.root) / "datasets" / DATASET / "manifest.json"
    path.write_text('{"schema_version": 0}')
    outcome = run(raster, finished, **asked)
    assert outcome.error.startswith(f"DataError: {path}: this version cannot read the manifest")
    assert outcome.error.endswith(
        f": embed the raster again (`rasterembed embed RASTER --dataset-id {DATASET} --replace`), or delete the "
        f"dataset (`rasterembed datasets delete {DATASET}`)"
    )

    outcome = run(raster, finished, replace=True, **asked)
    assert (outcome.error, outcome.embedded) == ("", 0)
    _assert_finished(finished, whole)


def test_of_two_runs_at_once_the_second_waits_and_finds_the_work_done(
    raster: Path,
    asked: dict[str, Any],
    store: ObjectStore,
    whole: dict[str, Vectors],
    pause: Pause,
) -> None:
    first = start(raster, store, hook=partial(_pause_before_batch, 2, pause), **asked)
    pause.reached()
    second = start(raster, store, **asked)
    second.wait_for("this run waits up to 3600 s")
    pause.end()

    assert (first.end().error, (done := second.end()).error) == ("", "")
    assert (done.embedded, done.loaded) == (0, 0)
    _assert_finished(store, whole)


def test_a_second_run_that_must_not_wait_says_who_holds_the_dataset(
    raster: Path, asked: dict[str, Any], store: ObjectStore, pause: Pause
) -> None:
    first = start(raster, store, hook=partial(_pause_before_batch, 2, pause), **asked)
    pause.reached()
    at_once = asked | {"execution": Execution(lease_wait=0)}
    outcome = run(raster, store, **at_once)
    pause.end()

    run_id = _run_id(store)
    assert outcome.error == (
        f"LeaseHeldError: dataset 'scene' is being written by run {run_id}: wait for that run to end "
        "(the lease of a dead run expires after 60 s)"
    )
    assert first.end().error == ""
    assert _manifest(store).run_id == run_id


def _run_id(store: ObjectStore) -> str:
    (lease,) = (Path(store.root) / "datasets" / DATASET / "lease").glob("*.json")
    run_id: str = json.loads(lease.read_text())["run_id"]
    return run_id


def _remove(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _lose_the_footer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-400:-8] = bytes(392)
    path.write_bytes(data)


def _overwrite(path: Path) -> None:
    path.write_bytes(b"no Parquet at all")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.vectors
@pytest.mark.parametrize("damage", [_remove, _truncate, _overwrite, _empty])
def test_a_shard_damaged_in_a_ready_dataset_is_made_anew_and_no_other(
    damage: Any, raster: Path, asked: dict[str, Any], finished: ObjectStore, whole: dict[str, Vectors]
) -> None:
    at_first, shard = files(Path(finished.root)), _manifest(finished).shards[1].path
    damage(Path(finished.root) / shard)

    embed_raster(finished, str(raster), EmbedOptions(**asked))
    _assert_finished(finished, whole)
    now = files(Path(finished.root))
    changed = {name for name in now if now[name] != at_first.get(name) and "/lease/" not in name}
    metadata = {name for name in changed if not name.startswith("embeddings/")}
    assert changed - metadata == {shard}
    assert all(name.startswith(("datasets/", "tiles/", "qa/")) for name in metadata)


@pytest.mark.vectors
@pytest.mark.parametrize("damage", [_truncate, _lose_the_footer, _overwrite, _empty])
def test_a_broken_shard_is_not_taken_for_complete(
    damage: Any, plan: Plan, asked: dict[str, Any], finished: ObjectStore, whole: dict[str, Vectors]
) -> None:
    shard = _manifest(finished).shards[1]
    damage(Path(finished.root) / shard.path)
    made = embed_shard(finished, plan, 1, EmbeddingJob(execution=asked["execution"], run_id=_manifest(finished).run_id))
    assert made == shard  # the very same file


def test_a_missing_index_is_written_anew(raster: Path, asked: dict[str, Any], finished: ObjectStore) -> None:
    at_first, index = files(Path(finished.root)), _manifest(finished).index
    (Path(finished.root) / index).unlink()
    outcome = run(raster, finished, **asked)
    assert (outcome.error, outcome.embedded) == ("", 0)
    assert files(Path(finished.root))[index][0] == at_first[index][0]


def test_a_raster_written_anew_is_another_configuration(
    tmp_path: Path, raster: Path, asked: dict[str, Any], store: ObjectStore
) -> None:
    mine = Path(shutil.copy(raster, tmp_path / "scene.tif"))
    embed_raster(store, str(mine), EmbedOptions(**asked))
    os.utime(mine, ns=(1, 1))
    with pytest.raises(DataError, match=r"^dataset 'scene' was made before its raster was changed: give `replace` to"):
        embed_raster(store, str(mine), EmbedOptions(**asked))


def test_declared_validity_has_the_names_of_its_parameters(
    tmp_path: Path, raster: Path, asked: dict[str, Any], store: ObjectStore
) -> None:
    mask = tmp_path / "mask.tif"
    with rasterio.open(raster) as source:
        profile = source.profile | {"count": 1, "dtype": "uint8", "photometric": "minisblack", "nodata": None}
    with rasterio.open(mask, "w", **profile) as target:
        target.write(np.ones((1, profile["height"], profile["width"]), np.uint8))
    masked = asked | {"validity": Validity(mask=str(mask))}
    embed_raster(store, str(raster), EmbedOptions(**masked))
    with pytest.raises(ConfigurationChangedError, match=rf'\(`mask`: "{mask}" in the dataset, not requested\): repeat'):
        embed_raster(store, str(raster), EmbedOptions(**asked))
    os.utime(mask, ns=(1, 1))
    with pytest.raises(
        ConfigurationChangedError, match=r'\(state of the file of `mask`: "\d+" in the dataset, "1" requ'
    ):
        embed_raster(store, str(raster), EmbedOptions(**masked))
    with pytest.raises(ConfigurationChangedError, match=r"\(`nodata`: not in the dataset, 7 requested; `mask`: "):
        embed_raster(store, str(raster), EmbedOptions(**asked | {"validity": Validity(nodata=7)}))


def test_another_raster_under_the_same_id_is_named(
    tmp_path: Path, raster: Path, asked: dict[str, Any], finished: ObjectStore
) -> None:
    other = Path(shutil.copy(raster, tmp_path / "other.tif"))
    outcome = run(other, finished, **asked)
    assert outcome.error == (
        f'ConfigurationChangedError: dataset \'scene\' is of another raster ("{raster}", not "{other}"): choose '
        "another dataset id, or give `replace` to embed this raster in its place"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_and_space_lets_it_go_on(
    small_disk: Path, raster: Path, asked: dict[str, Any], undisturbed: ObjectStore, whole: dict[str, Vectors]
) -> None:
    store = ObjectStore(root=str(small_disk / "store"))
    ballast = small_disk / "ballast"
    names = list(whole)
    # There is room for the plan, the lease, the tile index and the first shard, and for nothing that comes after it.
    kept = ("plan-*.json", "lease/*.json", "index.parquet", names[0])
    needed = [path for pattern in kept for path in Path(undisturbed.root).rglob(pattern)]
    assert len(needed) == len(kept)
    pages = 1 + sum(-(-path.stat().st_size // 4096) for path in needed)
    ballast.write_bytes(bytes(2 * 1024 * 1024 - 4096 * pages))

    outcome = run(raster, store, lease_s=LEASE_S, **asked)
    folder = f"{store.root}/embeddings/{DATASET}"
    assert outcome.error == f"StoreError: {folder}: the disk is full: free some space and run again"
    shards = store.sizes(f"embeddings/{DATASET}")
    assert set(shards) < set(names)
    assert names[0] in shards
    assert not list(small_disk.rglob("*.part"))
    assert read_manifest(store, DATASET) is None

    ballast.unlink()
    outcome = run(raster, store, lease_s=LEASE_S, **asked)
    assert (outcome.error, outcome.embedded) == ("", SHARDS - len(shards))
    _assert_finished(store, whole)


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))


def test_a_shard_that_the_system_cuts_off_is_not_left_behind(
    raster: Path, asked: dict[str, Any], store: ObjectStore, whole: dict[str, Vectors]
) -> None:
    outcome = run(raster, store, hook=_limit_file_size, **asked)
    assert outcome.error.startswith(f"StoreError: {store.root}/")
    assert outcome.error.endswith(": the file is larger than the system allows")
    assert not list(Path(store.root).rglob("*.part"))

    assert run(raster, store, **asked).error == ""
    _assert_finished(store, whole)


def test_a_run_that_was_suspended_until_another_took_over_stops(
    raster: Path,
    asked: dict[str, Any],
    replacing: dict[str, Any],
    store: ObjectStore,
    replacement: dict[str, Vectors],
    pause: Pause,
) -> None:
    first = start(raster, store, hook=partial(_pause_before_batch, 5, pause), lease_s=LEASE_S, **asked)
    pause.reached()
    first.signal(signal.SIGSTOP)
    assert run(raster, store, lease_s=LEASE_S, **replacing).error == ""

    first.signal(signal.SIGCONT)
    pause.end()
    lease = f"{store.root}/datasets/{DATASET}/lease"
    assert first.end().error == f"LeaseLostError: {lease}: another run took the dataset over; this run stops"
    assert vectors(store) == replacement

    assert run(raster, store, lease_s=LEASE_S, **replacing).error == ""  # removes what the first still wrote
    _assert_finished(store, replacement)


@pytest.mark.parametrize("version", ["0.1", "this"])
def test_shards_of_an_unfinished_run_with_other_settings_are_not_thrown_away_without_a_word(
    raster: Path, asked: dict[str, Any], tmp_path: Path, version: str
) -> None:
    store = ObjectStore(root=str(tmp_path))
    assert run(raster, store, hook=partial(on_change, 6, kill), lease_s=LEASE_S, **asked).exit_code == -signal.SIGKILL
    written = len(list((tmp_path / "embeddings" / DATASET).glob("*.parquet")))
    assert written
    if version == "0.1":
        (stored,) = (tmp_path / "datasets" / DATASET).glob("plan-*.json")
        stored.write_text(
            json.dumps({key: value for key, value in json.loads(stored.read_text()).items() if key != "requested"})
        )
    other = run(raster, store, lease_s=LEASE_S, **asked | {"grid": Grid(size=64)})
    assert other.error == ""
    warning = (
        f"warning: an earlier run of dataset '{DATASET}' with other settings (`size`: 32 in that run, 64 in this one"
    )
    assert warning in other.said
    assert f") wrote {written} of {SHARDS} shards" in other.said
    assert f"stop it and run `rasterembed embed {raster} --dataset-id {DATASET} " in other.said
    assert ("` with the options of that run" in other.said) is (version == "0.1")


def test_a_killed_run_over_the_missing_shards_of_a_dataset_keeps_those_that_it_computed(
    raster: Path, asked: dict[str, Any], tmp_path: Path, undisturbed: ObjectStore
) -> None:
    store = ObjectStore(root=str(tmp_path))
    strict = asked | {"qa": QaThresholds(max_mean_cosine=-1.0)}
    assert run(raster, store, **strict).error.startswith("QaError")
    manifest = read_manifest(store, DATASET)
    assert manifest is not None
    for shard in manifest.shards:
        store.delete(shard.path)
    assert run(raster, store, hook=partial(on_change, 10, kill), lease_s=LEASE_S, **asked).exit_code == -signal.SIGKILL
    written = len(list((tmp_path / "embeddings" / DATASET).glob("*.parquet")))
    assert 0 < written < SHARDS
    outcome = run(raster, store, lease_s=LEASE_S, **asked)
    assert (outcome.error, outcome.embedded) == ("", SHARDS - written)
    assert vectors(store) == vectors(undisturbed)
