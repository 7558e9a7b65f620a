"""A dataset that version 0.1 wrote still opens, answers, passes its quality checks, and is repaired by a new run.

tests/data/written-by-0.1/README.md says how its objects were made.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from rasterembed.collection_upkeep import rebuild_collection
from rasterembed.dataset.dataset import Dataset
from rasterembed.dataset.embedding import Execution
from rasterembed.dataset.selection import Selection
from rasterembed.model.choice import Dinov3
from rasterembed.qa.run import run_qa
from rasterembed.raster.grid import Grid
from rasterembed.search.query import Query
from rasterembed.search.searcher import search
from rasterembed.store.object_store import ObjectStore
from tests.support.promise import assert_tables_agree
from tests.support.runs import run, tiles
from tests.support.servers import S3Server

pytestmark = pytest.mark.vectors

WRITTEN = Path(__file__).parents[1] / "data/written-by-0.1"
RASTER = "s3://rasters/scene.tif"
DATASET = "scene"
TILES, SKIPPED = 35, 4

CONFIGURATION: dict[str, Any] = {
    "dataset_id": DATASET,
    "grid": Grid(size=32),
    "model": Dinov3(model="demo", device="cpu"),
    "selection": Selection(shard_tiles=16, on_bad_window="skip"),
    "execution": Execution(batch_size=4, shard_threads=1),
}
"""What the dataset was written with."""


@pytest.fixture(scope="module")
def server(moto: S3Server) -> S3Server:
    """A server with the bucket names that the dataset was written with."""
    moto.create_bucket("rasters")
    moto.create_bucket("embeddings")
    return moto


@pytest.fixture
def store(server: S3Server) -> ObjectStore:
    """The store with the objects that version 0.1 left in it."""
    client = server.client()
    for entry in client.list_objects_v2(Bucket="embeddings").get("Contents", []):
        client.delete_object(Bucket="embeddings", Key=entry["Key"])
    client.put_object(Bucket="rasters", Key="scene.tif", Body=(WRITTEN / "scene.tif").read_bytes())
    bucket = WRITTEN / "embeddings-bucket"
    for path in bucket.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="embeddings", Key=str(path.relative_to(bucket)), Body=path.read_bytes())
    return ObjectStore(
        root="s3://embeddings",
        endpoint_url=server.endpoint_url,
        access_key=SecretStr(server.access_key),
        secret_key=SecretStr(server.secret_key),
        region=server.region,
    )


def _shards(store: ObjectStore) -> dict[str, bytes | None]:
    return {key: store.read(f"embeddings/{DATASET}/{key}") for key in store.sizes(f"embeddings/{DATASET}")}


def test_it_opens(store: ObjectStore) -> None:
    dataset = Dataset.open(store, DATASET)
    assert (dataset.manifest.tiles, dataset.manifest.rows, dataset.manifest.skipped) == (
        TILES,
        TILES - SKIPPED,
        SKIPPED,
    )
    assert dataset.plan.fingerprint == dataset.manifest.fingerprint
    assert dataset.verify() == ()


def test_it_gives_the_same_answer(store: ObjectStore) -> None:
    expected = json.loads((WRITTEN / "answer.json").read_text())["hits"]
    answer = search(store, [DATASET], Query(tile="r000002_c000003"), k=len(expected))
    assert [hit.tile_id for hit in answer.hits] == [tile for tile, _ in expected]
    assert [hit.distance for hit in answer.hits] == pytest.approx([distance for _, distance in expected], abs=1e-6)


def test_it_becomes_a_collection_that_gives_the_same_answer(store: ObjectStore) -> None:
    expected = json.loads((WRITTEN / "answer.json").read_text())["hits"]
    collection = rebuild_collection(store, "old", datasets=[DATASET])
    answer = collection.search(Query(tile=f"{DATASET}/r000002_c000003"), k=len(expected))
    assert [hit.tile_id for hit in answer.hits] == [tile for tile, _ in expected]
    assert [hit.distance for hit in answer.hits] == pytest.approx([distance for _, distance in expected], abs=1e-6)
    assert {hit.scene for hit in answer.hits} == {RASTER}


def test_it_passes_its_quality_checks(store: ObjectStore) -> None:
    report = run_qa(store, Dataset.open(store, DATASET).manifest)
    assert report.passed
    assert not [metric.name for metric in report.metrics if metric.status == "breached"]
    values = {metric.name: metric.value for metric in report.metrics}
    assert values["undecodable_share"] == pytest.approx(1 / TILES)


def test_the_same_configuration_computes_nothing(store: ObjectStore) -> None:
    manifest, shards = Dataset.open(store, DATASET).manifest, _shards(store)
    outcome = run(RASTER, store, **CONFIGURATION)
    assert (outcome.error, outcome.embedded, outcome.loaded) == ("", 0, 0)
    assert Dataset.open(store, DATASET).manifest == manifest
    assert _shards(store) == shards


def test_a_dataset_half_written_by_0_1_is_completed(store: ObjectStore) -> None:
    """A run of 0.1 was killed before its last shard. Its complete shards have the old key, and they stay."""
    shards, rows = _shards(store), tiles(store)
    lost = sorted(shards)[-1]
    for key in (
        f"embeddings/{DATASET}/{lost}",
        f"datasets/{DATASET}/manifest.json",
        f"datasets/{DATASET}/stac-item.json",
    ):
        store.delete(key)

    outcome = run(RASTER, store, **CONFIGURATION)

    assert (outcome.error, outcome.embedded) == ("", 1)
    now = _shards(store)
    assert {name: now[name] for name in shards if name != lost} == {
        name: data for name, data in shards.items() if name != lost
    }
    assert_tables_agree(rows, tiles(store))
    keys = [set(pq.read_metadata(io.BytesIO(now[name] or b"")).metadata) for name in (min(shards), lost)]
    assert b"raster_embeddings" not in keys[0]
    assert {b"raster_embeddings", b"emb"} <= keys[1]
    assert Dataset.open(store, DATASET).verify() == ()


@pytest.mark.usefixtures("plain_pictures")
@pytest.mark.parametrize("number", [1, 2])
def test_only_a_lost_shard_is_computed_again(number: int, store: ObjectStore) -> None:
    before, shards, rows = Dataset.open(store, DATASET).manifest, _shards(store), tiles(store)
    lost = before.shards[number].path
    store.delete(lost)

    outcome = run(RASTER, store, **CONFIGURATION)

    assert (outcome.error, outcome.embedded) == ("", 1)
    after = Dataset.open(store, DATASET).manifest
    assert after.fingerprint == before.fingerprint
    assert [shard.path for shard in after.shards] == [shard.path for shard in before.shards]
    others = shards.keys() - {Path(lost).name}
    now = _shards(store)
    assert {name: now[name] for name in others} == {name: shards[name] for name in others}
    assert_tables_agree(rows, tiles(store))
    assert run_qa(store, after).passed
